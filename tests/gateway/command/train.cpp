// train: the upload, the job that is asked for, and following it to its end.
#include "gateway/command/follow_job.hpp"
#include "gateway/command/training_line.hpp"
#include "runtime/text/value.hpp"
#include "tests/support/command_run.hpp"
#include "tests/support/scripted_server.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <fstream>

namespace {

using namespace tandem;
using namespace tandem::tests;
namespace command = gateway::command;
using pieces = std::vector<std::string>;

constexpr const char* id = "ftjob-0123";

std::string metrics(int step, double loss, const std::string& more = {}) {
  return R"({"id": "e)" + std::to_string(step) + R"(", "created_at": )" +
         std::to_string(1000 + 2 * step) +
         R"(, "level": "info", "type": "metrics", "message": "", "data": {"step": )" +
         std::to_string(step) + R"(, "steps": 4, "tokens_per_second": 812.4, "train_loss": )" +
         std::to_string(loss) + more + "}}";
}
std::string message(const std::string& text, const std::string& level = "info") {
  return R"({"id": "m-)" + text + R"(", "created_at": 1000, "level": ")" + level +
         R"(", "type": "message", "message": ")" + text + R"(", "data": null})";
}

// A platform with one base model, whose jobs end as `last` says after `events`.
struct platform {
  std::vector<std::string> events = {message("validated 3 examples"), metrics(1, 2.5),
                                     metrics(2, 2.25), metrics(3, 2.0),
                                     metrics(4, 1.75, R"(, "valid_loss": 1.9)")};
  std::string last =
      R"("status": "succeeded", "fine_tuned_model": "ft:smol:tandem::0123", "trained_tokens": 96,
         "created_at": 1000, "finished_at": 1065, "tandem": {"step": 4, "steps": 4})";
  std::string models = R"({"data": [{"id": "smol"}, {"id": "ft:smol:tandem::old"}]})";
  std::string refusal;  // of the job

  pieces operator()(const seen_request& seen) const {
    const std::string job = "/v1/fine_tuning/jobs";
    if (seen.target == "/v1/models") return {json_reply(200, models)};
    if (seen.target == "/v1/files") return {json_reply(200, R"({"id": "file-9"})")};
    if (seen.method == "DELETE") return {json_reply(200, "{}")};
    if (seen.target == job && seen.method == "POST") {
      if (!refusal.empty()) return {json_reply(400, refusal)};
      return {json_reply(200, R"({"id": "ftjob-0123", "model": "smol", "status": "queued"})")};
    }
    if (seen.target == job + "/ftjob-0123/events?stream=true") return event_reply(events);
    if (seen.target == job + "/ftjob-0123") {
      return {json_reply(200, R"({"id": "ftjob-0123", "model": "smol", )" + last + "}")};
    }
    return {json_reply(404, R"({"error": {"message": "no route"}})")};
  }
};

struct examples {
  scratch_folder folder;
  std::string path = (folder.path() / "fa\"cts.jsonl").string();
  examples() {
    std::ofstream(path, std::ios::binary) << "{\"text\": \"a\"}\r\n\n{\"text\": \"b\"}";
  }
};

command_run train(const scripted_server& server, std::vector<std::string> words) {
  words.insert(words.begin(), "train");
  words.insert(words.end(), {"--address", server.address()});
  return run_command(words);
}

TEST_CASE("train uploads the file, starts a job and follows it to the model's name") {
  const examples data;
  const scripted_server server{platform()};
  const auto run = train(server, {data.path});
  CAPTURE(run.out, run.err);
  CHECK(run.status == 0);
  CHECK(run.out ==
        "succeeded: 4 steps, 96 tokens, 1m05s\nmodel  ft:smol:tandem::0123\n"
        "try    tandem chat ft:smol:tandem::0123 --address " +
            server.address() + " -m \"Hello\"\n");
  CHECK(run.err.find("ftjob-0123 tunes smol\nvalidated 3 examples\n"
                     "step 1/4  loss 2.5000  812 tokens/s\n") != std::string::npos);
  CHECK(run.err.find("step 3/4  loss 2.0000  812 tokens/s  2s left\n"
                     "step 4/4  loss 1.7500  valid 1.9000  812 tokens/s\n") != std::string::npos);
}

TEST_CASE("the file goes as it is in the part called file, behind its purpose") {
  const examples data;
  const scripted_server server{platform()};
  CHECK(train(server, {data.path, "--detach"}).status == 0);
  const auto requests = server.requests();
  const auto upload = std::ranges::find(requests, "/v1/files", &seen_request::target);
  REQUIRE(upload != requests.end());
  const std::string boundary = upload->body.substr(0, upload->body.find("\r\n"));
  CHECK(boundary.starts_with("--"));
  CHECK(upload->body ==
        boundary + "\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n" +
            boundary +
            "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"fa%22cts.jsonl\"\r\n"
            "Content-Type: application/octet-stream\r\n\r\n"
            "{\"text\": \"a\"}\r\n\n{\"text\": \"b\"}\r\n" +
            boundary + "--\r\n");
}

TEST_CASE("a file larger than any buffer arrives whole, and its progress is told") {
  const scratch_folder folder;
  const std::string path = (folder.path() / "large").string();
  std::string bytes(900'000, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 + i / 251);
  std::ofstream(path, std::ios::binary) << bytes;
  const scripted_server server([](const seen_request& seen) {
    return pieces{json_reply(200, R"({"bytes": )" + std::to_string(seen.body.size()) + "}")};
  });
  auto client = command::http_client::create(server.address(), "");
  REQUIRE(client);
  std::uint64_t sent = 0;
  std::uint64_t total = 0;
  command::http_call call;
  call.method = "POST";
  call.target = "/v1/files";
  call.upload = command::file_upload{path, {}, [&](std::uint64_t now, std::uint64_t all) {
                                       CHECK(now > sent);
                                       sent = now;
                                       total = all;
                                     }};
  REQUIRE(client->exchange(call));
  CHECK(sent == total);
  CHECK(server.requests().front().body.find(bytes) != std::string::npos);
}

TEST_CASE("only what was given is asked for, under the published names and ours") {
  const examples data;
  const scripted_server server{platform()};
  CHECK(train(server, {data.path, "--detach"}).status == 0);
  CHECK(*text::value::from_json(server.requests().back().body) ==
        *text::value::from_json(R"({"model": "smol", "training_file": "file-9", "method":
          {"type": "supervised", "supervised": {"hyperparameters": {}}}})"));

  const auto run = train(server, {data.path,
                                  "--detach",
                                  "--model",
                                  "other",
                                  "--validation",
                                  data.path,
                                  "--suffix",
                                  "facts",
                                  "--seed",
                                  "7",
                                  "--epochs",
                                  "3",
                                  "--batch-size",
                                  "auto",
                                  "--learning-rate-multiplier",
                                  "0.5",
                                  "--method",
                                  "full",
                                  "--rank",
                                  "8",
                                  "--alpha",
                                  "16",
                                  "--targets",
                                  "q_proj,v_proj",
                                  "--sequence-length",
                                  "512",
                                  "--slots",
                                  "2",
                                  "--micro-batch",
                                  "2",
                                  "--schedule",
                                  "cosine",
                                  "--warmup-steps",
                                  "5",
                                  "--weight-decay",
                                  "0.1",
                                  "--clip-norm",
                                  "0",
                                  "--no-packing",
                                  "--no-shuffle",
                                  "--recompute",
                                  "--publish-every",
                                  "10",
                                  "--checkpoint-every",
                                  "20",
                                  "--serve-format",
                                  "q8_0",
                                  "--precision",
                                  "f32",
                                  "--long-examples",
                                  "truncate"});
  CAPTURE(run.err);
  CHECK(run.status == 0);
  CHECK(*text::value::from_json(server.requests().back().body) ==
        *text::value::from_json(R"({"model": "other", "training_file": "file-9",
          "validation_file": "file-9", "suffix": "facts", "seed": 7,
          "method": {"type": "supervised", "supervised": {"hyperparameters":
            {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 0.5}}},
          "tandem": {"method": "full", "rank": 8, "alpha": 16.0, "targets": ["q_proj", "v_proj"],
            "sequence_length": 512, "slots": 2, "micro_batch": 2, "schedule": "cosine",
            "warmup_steps": 5, "weight_decay": 0.1, "clip_norm": 0.0, "packing": false,
            "shuffle": false, "recompute": true, "publish_every_steps": 10,
            "checkpoint_every_steps": 20, "serve_format": "q8_0",
            "precision": "f32", "long_examples": "truncate"}})"));
}

TEST_CASE("wrong options are wrong usage, and nothing is sent") {
  const examples data;
  const scripted_server server{platform()};
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"--epochs", "many"},
        {"--method", "qlora"},
        {"--learning-rate", "1e-4", "--learning-rate-multiplier", "2"},
        {"--schedule", "none"},
        {"--seed", "x"},
        {"--long-examples", "cut"}}) {
    std::vector<std::string> all = {data.path};
    all.insert(all.end(), words.begin(), words.end());
    const auto run = train(server, all);
    CAPTURE(words, run.err);
    CHECK(run.status == 2);
    CHECK(std::ranges::count(run.err, '\n') == 1);
  }
  CHECK(train(server, {}).status == 2);
  CHECK(server.requests().empty());
}

TEST_CASE("a missing file and a folder are refused before anything is sent") {
  const scratch_folder folder;
  const scripted_server server{platform()};
  const auto missing = train(server, {"/none.jsonl", "--model", "smol"});
  CHECK(missing.status == 1);
  CHECK(missing.err == "tandem: no file /none.jsonl\n");
  CHECK(train(server, {folder.path().string(), "--model", "smol"}).err.find("no regular file") !=
        std::string::npos);
  CHECK(server.requests().empty());
}

TEST_CASE("without --model the only base that is served is tuned; of several none is guessed") {
  const examples data;
  platform two;
  two.models = R"({"data": [{"id": "a"}, {"id": "b"}]})";
  const scripted_server server{two};
  const auto run = train(server, {data.path});
  CHECK(run.status == 1);
  CHECK(run.err == "tandem: " + server.address() + " serves 2 models: give --model, one of a, b\n");
  platform none;
  none.models = R"({"data": []})";
  const scripted_server empty{none};
  CHECK(train(empty, {data.path}).err.find("serves no model yet") != std::string::npos);
}

TEST_CASE("a refused job leaves no uploaded file behind and tells the server's words") {
  const examples data;
  platform strict;
  strict.refusal = R"({"error": {"message": "line 2: no messages"}})";
  const scripted_server server{strict};
  const auto run = train(server, {data.path});
  CHECK(run.status == 1);
  CHECK(run.err.find("answered 400: line 2: no messages\n") != std::string::npos);
  CHECK(server.requests().back().method == "DELETE");
  CHECK(server.requests().back().target == "/v1/files/file-9");
}

TEST_CASE("a job that fails ends with 1 and its message") {
  const examples data;
  platform failing;
  failing.events = {metrics(1, 2.5), message("the loss is not finite", "error")};
  failing.last = R"("status": "failed", "error": {"code": "not_finite",
    "message": "step 2, batch 7: the loss is NaN"})";
  const scripted_server server{failing};
  const auto run = train(server, {data.path});
  CHECK(run.status == 1);
  CHECK(run.out.empty());
  CHECK(run.err.find("error: the loss is not finite\n") != std::string::npos);
  CHECK(run.err.find("tandem: ftjob-0123 failed: step 2, batch 7: the loss is NaN\n") !=
        std::string::npos);
  // A program reads the failed job, too.
  CHECK(train(server, {data.path, "--json"}).out.find("\"failed\"") != std::string::npos);

  failing.last = R"("status": "cancelled")";
  const scripted_server cancelling{failing};
  const auto cancelled = train(cancelling, {data.path});
  CHECK(cancelled.status == 1);
  CHECK(cancelled.err.find("tandem: ftjob-0123 was cancelled\n") != std::string::npos);
}

TEST_CASE("train --detach prints the id and how to go on; --json the job's object") {
  const examples data;
  const scripted_server server{platform()};
  const auto run = train(server, {data.path, "--detach"});
  CHECK(run.out.find("ftjob-0123\nfollow it  tandem job ftjob-0123 --address " + server.address() +
                     " --follow\n") == 0);
  const auto json = text::value::from_json(train(server, {data.path, "--detach", "--json"}).out);
  REQUIRE(json);
  CHECK(*json->find("id")->if_string() == id);
}

TEST_CASE("job --follow --json gives each event once, a line each, and the job last") {
  platform twice;
  twice.events.push_back(twice.events[1]);  // a server that repeats itself
  const scripted_server server{twice};
  const auto run = run_command({"job", id, "--follow", "--json", "--address", server.address()});
  CHECK(run.status == 0);
  CHECK(std::ranges::count(run.out, '\n') == 6);
  CHECK(run.out.find("\"succeeded\"") > run.out.find("\"e4\""));
}

TEST_CASE("following goes on over a broken stream and shows every event once") {
  int streams = 0;
  const platform whole;
  const scripted_server server([&](const seen_request& seen) -> pieces {
    if (seen.target.find("stream=true") == std::string::npos) return whole(seen);
    pieces reply = event_reply(whole.events);
    if (++streams == 1) {  // cut in the middle
      reply.resize(3);
      reply.emplace_back("");
    }
    return reply;
  });
  auto client = command::http_client::create(server.address(), "");
  REQUIRE(client);
  std::vector<std::string> events;
  int troubles = 0;
  command::follow_options options;
  options.retry_every = std::chrono::milliseconds(1);
  options.on_event = [&](const command::job_event& event) { events.push_back(event.id); };
  options.on_trouble = [&](std::string_view) { ++troubles; };
  const auto job = command::follow_job(*client, id, options);
  REQUIRE(job);
  CHECK(job->status == "succeeded");
  CHECK(events == std::vector<std::string>{"m-validated 3 examples", "e1", "e2", "e3", "e4"});
  CHECK(troubles == 1);
}

TEST_CASE("following gives up on a server that stays away, and at once on one that refuses") {
  auto nobody = command::http_client::create("http://127.0.0.1:1", "");
  REQUIRE(nobody);
  command::follow_options options;
  options.retry_every = std::chrono::milliseconds(1);
  options.lost_max = std::chrono::milliseconds(20);
  CHECK(command::follow_job(*nobody, id, options).error().code == errc::unavailable);

  const scripted_server locked([](const seen_request&) {
    return pieces{json_reply(401, R"({"error": {"message": "no key"}})")};
  });
  auto client = command::http_client::create(locked.address(), "");
  CHECK(command::follow_job(*client, id, options).error().code == errc::unauthorized);
  CHECK(locked.requests().size() == 1);
}

TEST_CASE("who stops following leaves the job alone") {
  const scripted_server server([](const seen_request&) -> pieces {
    return {event_reply({}).front(), chunk("data: " + metrics(1, 2.5) + "\n\n")};
  });
  auto client = command::http_client::create(server.address(), "");
  bool seen = false;
  command::follow_options options;
  options.on_event = [&](const command::job_event&) { seen = true; };
  options.stopped = [&] { return seen; };
  CHECK(command::follow_job(*client, id, options).error().code == errc::cancelled);
  for (const auto& request : server.requests()) CHECK(request.method == "GET");
}

TEST_CASE("the time left follows the last steps, and forgets what was before a resume") {
  command::step_pace pace;
  pace.add(1000, 1);
  CHECK_FALSE(pace.seconds_left(100));
  pace.add(1002, 2);
  CHECK_FALSE(pace.seconds_left(100));  // whole seconds tell too little yet
  pace.add(1004, 3);
  CHECK(pace.seconds_left(103) == 200);
  pace.add(5000, 2);  // taken up again
  CHECK_FALSE(pace.seconds_left(103));
  pace.add(5010, 4);
  CHECK(pace.seconds_left(104) == 500);
  CHECK(pace.seconds_left(4) == 0);
}

TEST_CASE("on a terminal the bar is redrawn, fits its width, and leaves room for messages") {
  std::ostringstream out;
  {
    command::training_line line(out, true, 60);
    line.show(command::event_from(*text::value::from_json(metrics(2, 2.5))));
    line.say("a checkpoint\nwas saved");
  }
  CHECK(out.str() ==
        "\r\x1b[K[==========          ] 2/4  loss 2.5000  812 tokens/s"
        "\r\x1b[Ka checkpoint was saved\n"
        "\r\x1b[K[==========          ] 2/4  loss 2.5000  812 tokens/s\n");
  std::ostringstream narrow;
  {
    command::training_line line(narrow, true, 45);
    line.show(command::event_from(*text::value::from_json(metrics(2, 2.5))));
  }
  CHECK(narrow.str() == "\r\x1b[K[==========          ] 2/4  loss 2.5000\n");
}

TEST_CASE("plain lines are few: a twentieth of the steps each, and one a minute for slow ones") {
  std::ostringstream out;
  {
    command::training_line line(out, false, 80);
    for (int step = 1; step <= 1000; ++step) {
      line.show(command::event_from(*text::value::from_json(
          R"({"id": "e", "type": "metrics", "created_at": 5, "data": {"steps": 1000, "step": )" +
          std::to_string(step) + "}}")));
    }
  }
  CHECK(std::ranges::count(out.str(), '\n') == 21);  // the first step's, and the twentieths
}

}  // namespace
