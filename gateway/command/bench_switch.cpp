// `tandem bench switch`: two devices of a running server change places between serving and
// training, again and again, while streams and a job run. Timed by the server itself: from the
// decision to the device's first piece of work in its new role.
#include "gateway/command/bench.hpp"
#include "gateway/command/interrupt.hpp"
#include "gateway/command/jobs.hpp"
#include "gateway/command/json_view.hpp"
#include "gateway/command/load_generator.hpp"
#include "gateway/command/print.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <ostream>
#include <thread>

namespace tandem::gateway::command {
namespace {

using text::value;
using steady = std::chrono::steady_clock;

constexpr auto job_patience = std::chrono::minutes(5);
constexpr auto move_patience = std::chrono::seconds(30);
constexpr auto look_period = std::chrono::milliseconds(5);

struct switch_options {
  int swaps = 200;
  int pause_ms = 1500;
  int streams = 8;
  int prompt_tokens = 32;
  int max_tokens = 64;
  std::string method = "full";
};

// The server's own figures of one direction, in milliseconds.
struct direction {
  std::vector<double> held;
  std::vector<double> worked;
};

struct switch_report {
  std::vector<std::string> devices;
  direction to_serve;
  direction to_train;
  load_report load;
};

// A job that goes on for as long as the bench does.
class bench_job {
 public:
  bench_job(http_client& client, const switch_options& options) : client_(client) {
    begun_ = start(options);
  }
  ~bench_job() {
    if (!id_.empty()) (void)client_.post_json(job_target(id_, "/cancel"), "{}");
    if (file_.empty()) return;
    http_call call;
    call.method = "DELETE";
    call.target = "/v1/files/" + file_;
    (void)client_.exchange(call);
  }
  bench_job(const bench_job&) = delete;
  bench_job& operator=(const bench_job&) = delete;

  const result<void>& begun() const { return begun_; }

 private:
  result<void> start(const switch_options& options) {
    const auto path = std::filesystem::temp_directory_path() /
                      fmt::format("tandem-bench-switch-{}.jsonl", ::getpid());
    {
      std::ofstream file(path);
      for (int line = 0; line < 64; ++line)
        file << fmt::format(R"({{"text": "{}"}})", words_of(line)) << '\n';
    }
    http_call upload;
    upload.method = "POST";
    upload.target = "/v1/files";
    upload.upload = file_upload{path, {{"purpose", "fine-tune"}}, {}};
    const auto answer = client_.exchange(upload);
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
    if (!answer) return answer.error();
    if (answer->status / 100 != 2) return refusal_of(client_.address(), *answer);
    const auto object = value::from_json(answer->body);
    if (!object) return object.error();
    file_ = words(member(*object, "id"));
    const auto models = client_.get_json("/v1/models");
    if (!models) return models.error();
    std::string base;
    for (const value& model : list(member(*models, "data")))
      if (const auto id = words(member(model, "id")); base.empty() && !id.starts_with("ft:"))
        base = id;
    const value body(value::object{
        {"model", base},
        {"training_file", file_},
        {"method",
         value::object{
             {"type", "supervised"},
             {"supervised", value::object{{"hyperparameters",
                                           value::object{{"n_epochs", 50}, {"batch_size", 2}}}}}}},
        {"tandem",
         value::object{{"method", options.method}, {"checkpoint_every_steps", 1'000'000}}}});
    const auto job = client_.post_json(std::string(jobs_path), body.to_json());
    if (!job) return job.error();
    id_ = words(member(*job, "id"));
    return {};
  }

  static std::string words_of(int line) {
    std::string text;
    for (int i = 0; i < 4; ++i) text += fmt::format("{} and {} ", (line * 61 + i * 7) % 997, i);
    return text;
  }

  http_client& client_;
  std::string file_;
  std::string id_;
  result<void> begun_;
};

std::vector<std::string> resident_devices(const value& leases) {
  std::vector<std::string> names;
  for (const value& device : list(member(leases, "devices")))
    if (const bool* there = member(device, "resident").if_bool(); there && *there)
      names.push_back(words(member(device, "device")));
  return names;
}

result<std::vector<std::string>> wait_for_job(http_client& client, const interrupt_watch& ctrl_c) {
  const auto end = steady::now() + job_patience;
  while (steady::now() < end && !ctrl_c.seen()) {
    const auto leases = client.get_json("/admin/leases");
    if (!leases) return leases.error();
    if (list(member(*leases, "devices")).size() < 2)
      return error{errc::bad_request,
                   "one device cannot change places with another: start the server with two, for "
                   "instance --set 'devices.list=[\"cpu:0-0\", \"cpu:1-1\"]'",
                   {}};
    if (auto devices = resident_devices(*leases); devices.size() >= 2) return devices;
    std::this_thread::sleep_for(look_period);
  }
  return error{errc::timed_out, "the job did not come into the memory of two devices", {}};
}

result<void> order(http_client& client, const std::string& device, std::string_view role) {
  const value body(value::object{{"device", device}, {"role", std::string(role)}});
  const auto answer = client.post_json("/admin/assign", body.to_json());
  if (!answer) return answer.error();
  return {};
}

result<void> wait_for_role(http_client& client, const std::string& device, const std::string& role,
                           const interrupt_watch& ctrl_c) {
  const auto end = steady::now() + move_patience;
  while (steady::now() < end && !ctrl_c.seen()) {
    const auto leases = client.get_json("/admin/leases");
    if (!leases) return leases.error();
    for (const value& page : list(member(*leases, "devices")))
      if (words(member(page, "device")) == device && words(member(page, "role")) == role) return {};
    std::this_thread::sleep_for(look_period);
  }
  if (ctrl_c.seen()) return error{errc::cancelled, "stopped", {}};
  return error{errc::timed_out, fmt::format("{} did not become {} within 30 s", device, role), {}};
}

// The move of this device to this role after that epoch, once its first piece has begun.
result<value> finished_move(http_client& client, const std::string& device, std::string_view role,
                            std::int64_t after, const interrupt_watch& ctrl_c) {
  const auto end = steady::now() + move_patience;
  while (steady::now() < end && !ctrl_c.seen()) {
    const auto history =
        client.get_json(fmt::format("/admin/leases/history?device={}&limit=4", device));
    if (!history) return history.error();
    for (const value& event : list(member(*history, "data")))
      if (words(member(event, "kind")) == "move" && words(member(event, "to")) == role &&
          integer_or(member(event, "epoch"), 0) > after &&
          number(member(event, "first_work_after_us")))
        return event;
    std::this_thread::sleep_for(look_period);
  }
  if (ctrl_c.seen()) return error{errc::cancelled, "stopped", {}};
  return error{errc::timed_out, fmt::format("{} did no work as {} within 30 s", device, role), {}};
}

void keep(direction& to, const value& move) {
  to.held.push_back(number_or(member(move, "held_after_us"), 0) / 1e3);
  to.worked.push_back(number_or(member(move, "first_work_after_us"), 0) / 1e3);
}

result<void> swap_places(http_client& client, const std::string& serving,
                         const std::string& training, switch_report& report,
                         const interrupt_watch& ctrl_c) {
  const auto before = client.get_json("/admin/leases");
  if (!before) return before.error();
  const auto newest = integer_or(member(*before, "epoch"), 0);
  if (auto told = order(client, training, "serve"); !told) return told.error();
  if (auto told = order(client, serving, "train"); !told) return told.error();
  const auto served = finished_move(client, training, "serve", newest, ctrl_c);
  if (!served) return served.error();
  const auto trained = finished_move(client, serving, "train", newest, ctrl_c);
  if (!trained) return trained.error();
  keep(report.to_serve, *served);
  keep(report.to_train, *trained);
  return {};
}

void pause(std::chrono::milliseconds time, const interrupt_watch& ctrl_c) {
  const auto end = steady::now() + time;
  while (steady::now() < end && !ctrl_c.seen()) std::this_thread::sleep_for(look_period);
}

result<switch_report> measure(const invocation& call, const switch_options& options) {
  auto client = connect(call);
  if (!client) return client.error();
  const interrupt_watch ctrl_c;
  bench_job job(*client, options);
  if (!job.begun()) return job.begun().error();
  auto devices = wait_for_job(*client, ctrl_c);
  if (!devices) return devices.error();
  devices->resize(2);
  switch_report report;
  report.devices = *devices;
  const std::string serving = (*devices)[0];
  const std::string training = (*devices)[1];
  if (auto told = order(*client, serving, "serve"); !told) return told.error();
  if (auto told = order(*client, training, "train"); !told) return told.error();
  for (const auto& [device, role] :
       {std::pair{serving, std::string("serve")}, std::pair{training, std::string("train")}})
    if (auto there = wait_for_role(*client, device, role, ctrl_c); !there) return there.error();

  load_options load;
  load.address = call.address;
  load.api_key = call.api_key;
  load.streams = options.streams;
  load.prompt_tokens = options.prompt_tokens;
  load.max_tokens = options.max_tokens;
  load.seconds = 86'400;
  load.vocabulary_size = 10'000;
  const auto models = client->get_json("/v1/models");
  if (!models) return models.error();
  for (const value& model : list(member(*models, "data")))
    if (const auto id = words(member(model, "id")); load.model.empty() && !id.starts_with("ft:"))
      load.model = id;
  std::atomic<bool> enough = false;
  load.stopped = [&] { return enough.load(); };
  std::thread streams([&] { report.load = run_load(load); });
  result<void> went;
  for (int i = 0; i < options.swaps && went && !ctrl_c.seen(); ++i) {
    went = swap_places(*client, (*devices)[0], (*devices)[1], report, ctrl_c);
    std::swap((*devices)[0], (*devices)[1]);
    pause(std::chrono::milliseconds(options.pause_ms), ctrl_c);
  }
  enough = true;
  streams.join();
  for (const auto& device : report.devices) (void)order(*client, device, "auto");
  if (!went) return went.error();
  return report;
}

value as_json(const std::vector<double>& of) {
  return value(value::object{
      {"p50", quantile(of, 0.5)}, {"p99", quantile(of, 0.99)}, {"max", quantile(of, 1.0)}});
}

void print(std::ostream& out, const switch_report& report) {
  const auto row = [](const char* name, const std::vector<double>& of) {
    return std::vector<std::string>{name, fmt::format("{:>8.2f}", quantile(of, 0.5)),
                                    fmt::format("{:>8.2f}", quantile(of, 0.99)),
                                    fmt::format("{:>8.2f}", quantile(of, 1.0))};
  };
  out << fmt::format("{} changed places {} times\n", fmt::join(report.devices, " and "),
                     report.to_serve.worked.size());
  print_table(out, {{"from the decision (ms)", "     p50", "     p99", "     max"},
                    row("to serve: device holds it", report.to_serve.held),
                    row("to serve: first piece begins", report.to_serve.worked),
                    row("to train: device holds it", report.to_train.held),
                    row("to train: first piece begins", report.to_train.worked)});
  out << fmt::format("beside it: {} requests answered, {} failed\n", report.load.answered,
                     report.load.failed);
}

int run_bench_switch(const invocation& call, const switch_options& options) {
  const auto report = measure(call, options);
  if (!report) return refuse(call.io, report.error());
  if (call.json)
    call.io.out << value(value::object{
                             {"swaps", static_cast<std::int64_t>(report->to_serve.worked.size())},
                             {"to_serve_held_ms", as_json(report->to_serve.held)},
                             {"to_serve_first_piece_ms", as_json(report->to_serve.worked)},
                             {"to_train_held_ms", as_json(report->to_train.held)},
                             {"to_train_first_piece_ms", as_json(report->to_train.worked)},
                             {"answered", report->load.answered},
                             {"failed", report->load.failed}})
                       .to_json()
                << std::endl;
  else
    print(call.io.out, *report);
  if (report->load.failed == 0) return done;
  return refuse(call.io, {errc::unavailable,
                          fmt::format("{} requests failed, first: {}", report->load.failed,
                                      report->load.first_failure),
                          {}});
}

}  // namespace

void add_bench_switch(CLI::App& bench, invocation& call) {
  CLI::App* command = add_command(
      bench, "switch", "Time devices that change places between training and serving",
      "tandem bench switch --swaps 200 --streams 8\n\nAgainst a running server of two devices or "
      "more. A job of its own is started\nand cancelled at the end; streams are kept up all the "
      "while.");
  add_server_options(*command, call);
  add_json_option(*command, call);
  auto options = std::make_shared<switch_options>();
  command->add_option("--swaps", options->swaps, "How often two devices change places")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command
      ->add_option("--pause-ms", options->pause_ms,
                   "Between two changes; what was handed over is read again in it")
      ->check(CLI::Range(0, 60'000))
      ->capture_default_str();
  command->add_option("--streams", options->streams, "Requests at once")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--prompt-tokens", options->prompt_tokens, "Of each prompt")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command->add_option("--max-tokens", options->max_tokens, "Of each answer")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command->add_option("--method", options->method, "Of the job: full or lora")
      ->check(CLI::IsMember({"full", "lora"}))
      ->capture_default_str();
  command->callback([options, &call] { call.status = run_bench_switch(call, *options); });
}

}  // namespace tandem::gateway::command
