// `tandem train`: upload the examples, start a job, follow it to its end.
#include "gateway/command/commands.hpp"
#include "gateway/command/follow_job.hpp"
#include "gateway/command/interrupt.hpp"
#include "gateway/command/json_view.hpp"
#include "gateway/command/print.hpp"
#include "gateway/command/progress_line.hpp"
#include "gateway/command/train_options.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <ostream>

namespace tandem::gateway::command {
namespace {

using text::value;

// The model to tune: as given, or the only one that is served and no tuned one itself.
result<std::string> base_model(http_client& client, const std::string& wanted) {
  if (!wanted.empty()) return wanted;
  const auto served = client.get_json("/v1/models");
  if (!served) return served.error();
  std::vector<std::string> ids;
  for (const value& model : list(member(*served, "data"))) {
    std::string id = words(member(model, "id"));
    if (!id.empty() && !id.starts_with("ft:")) ids.push_back(std::move(id));
  }
  if (ids.size() == 1) return ids.front();
  return error{errc::unavailable,
               ids.empty() ? fmt::format("{} serves no model yet", client.address().text)
                           : fmt::format("{} serves {} models: give --model, one of {}",
                                         client.address().text, ids.size(), fmt::join(ids, ", ")),
               {}};
}

// The uploaded file's id.
result<std::string> upload(const console& io, http_client& client,
                           const std::filesystem::path& path) {
  const interrupt_watch ctrl_c;
  progress_line line(io.err, io.err_is_terminal);
  http_call call;
  call.method = "POST";
  call.target = "/v1/files";
  call.stopped = [&] { return ctrl_c.seen(); };
  call.upload =
      file_upload{path, {{"purpose", "fine-tune"}}, [&](std::uint64_t sent, std::uint64_t total) {
                    line.show(path.filename().string(), sent, total);
                  }};
  const auto answer = client.exchange(call);
  if (!answer) {
    if (answer.error().code != errc::cancelled) return answer.error();
    return error{errc::cancelled, "stopped: no job was started", {}};
  }
  if (answer->status / 100 != 2) return refusal_of(client.address(), *answer);
  const auto file = value::from_json(answer->body);
  if (!file) return file.error();
  const std::string id = words(member(*file, "id"));
  if (id.empty()) {
    return error{errc::bad_file, fmt::format("{} gave the file no id", client.address().text), {}};
  }
  return id;
}

// What no job uses need not stay; whether it goes is no news.
void forget_files(http_client& client, const std::vector<std::string>& files) {
  for (const std::string& id : files) {
    http_call call;
    call.method = "DELETE";
    call.target = "/v1/files/" + id;
    const auto ignored = client.exchange(call);
    if (!ignored) return;
  }
}

result<job_view> start_job(const console& io, http_client& client, const train_options& options) {
  const auto model = base_model(client, options.model);
  if (!model) return model.error();
  std::vector<std::string> files;
  for (const std::string& path : {options.data, options.validation}) {
    if (path.empty()) continue;
    auto id = upload(io, client, path);
    if (!id) {
      forget_files(client, files);
      return id.error();
    }
    files.push_back(std::move(*id));
  }
  const auto object = client.post_json(
      std::string(jobs_path),
      job_request(options, *model, files.front(), files.size() > 1 ? files.back() : "").to_json());
  if (!object) {
    // A server that went away may have started it: then the files are in use.
    if (object.error().code != errc::io && object.error().code != errc::timed_out) {
      forget_files(client, files);
    }
    return object.error();
  }
  return job_from(*object);
}

void print_detached(const invocation& call, const job_view& job) {
  if (call.json) {
    call.io.out << job.whole.to_json() << std::endl;
    return;
  }
  const std::string at = address_words(call);
  call.io.out << job.id << "\n"
              << fmt::format("follow it  tandem job {}{} --follow\n", job.id, at)
              << fmt::format("its curve  tandem plot {}{}\n", job.id, at)
              << fmt::format("stop it    tandem cancel {}{}", job.id, at) << std::endl;
}

void print_trained(const invocation& call, const job_view& job) {
  if (call.json) {
    call.io.out << job.whole.to_json() << std::endl;
    return;
  }
  std::string how = fmt::format("{} steps, {} tokens", job.step_count, job.trained_tokens);
  if (job.finished_at > job.created_at) {
    how += ", " + human_duration(job.finished_at - job.created_at);
  }
  call.io.out << fmt::format("{}: {}\n", job.status, how)
              << fmt::format("model  {}\n", job.fine_tuned_model)
              << fmt::format("try    tandem chat {}{} -m \"Hello\"", job.fine_tuned_model,
                             address_words(call))
              << std::endl;
}

int run_train(const invocation& call, const train_options& options) {
  const console& io = call.io;
  auto client = connect(call);
  if (!client) return refuse_usage(io, client.error().detail);
  const auto job = start_job(io, *client, options);
  if (!job) return refuse(io, job.error());
  if (options.detach) {
    print_detached(call, *job);
    return done;
  }
  io.err << fmt::format("{} tunes {}", job->id, job->base_model) << std::endl;
  job_view ended;
  const int status = follow_on_screen(call, *client, job->id, false, ended);
  if (status == done || (call.json && ended.ended())) print_trained(call, ended);
  return status;
}

}  // namespace

void add_train(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(
      app, "train", "Fine-tune a model on examples, and follow the job to its end",
      "tandem train facts.jsonl --epochs 10 --suffix facts\n\nEach line of the file is one of\n"
      "  {\"messages\": [{\"role\": \"user\", \"content\": \"…\"}, {\"role\": \"assistant\", "
      "\"content\": \"…\"}]}\n"
      "  {\"prompt\": \"…\", \"completion\": \"…\"}    {\"text\": \"…\"}\n"
      "What is not given the platform decides by the data; `tandem job ID` shows it. Ctrl-C "
      "leaves\n"
      "the job running. --json prints the job's object at the end. Exit status 1 when it fails.");
  add_server_options(*command, call);
  add_json_option(*command, call);
  auto options = add_train_options(*command);
  command->callback([options, &call] { call.status = run_train(call, *options); });
}

}  // namespace tandem::gateway::command
