#include "gateway/command/chat_session.hpp"
#include "runtime/text/value.hpp"
#include "tests/support/command_run.hpp"
#include "tests/support/scripted_server.hpp"

#include <fmt/format.h>
#include <catch2/catch.hpp>

#include <algorithm>

namespace {

using namespace tandem;
using namespace tandem::tests;
using pieces = std::vector<std::string>;

std::string text_chunk(const std::string& text) {
  return R"({"choices": [{"index": 0, "delta": {"content": ")" + text +
         R"("}, "finish_reason": null}]})";
}

// A model that answers with the number of messages it was shown: "2 messages".
pieces counting_model(const seen_request& seen) {
  if (seen.target == "/v1/models") {
    return {json_reply(200, R"({"data": [{"id": "first"}, {"id": "second"}]})")};
  }
  const auto body = text::value::from_json(seen.body);
  const std::size_t count = body->find("messages")->if_array()->size();
  return event_reply(
      {R"({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})",
       text_chunk(std::to_string(count)), text_chunk(" messages"),
       R"({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})",
       R"({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}})"});
}

command_run chat(const scripted_server& server, std::vector<std::string> words,
                 std::string input = {}) {
  words.insert(words.begin(), {"chat", "--address", server.address()});
  command_world world;
  world.input = std::move(input);
  return run_command(words, world);
}

TEST_CASE("chat -m prints one streamed answer of the first served model") {
  const scripted_server server(counting_model);
  const auto run = chat(server, {"-m", "Hi"});
  CHECK(run.status == 0);
  CHECK(run.err.empty());
  CHECK(run.out == "1 messages\n");
  const auto body = text::value::from_json(server.requests().back().body);
  CHECK(*body->find("model")->if_string() == "first");
  CHECK(*body->find("stream")->if_bool());
}

TEST_CASE("chat sends the model, the system prompt and the sampling that were asked for") {
  const scripted_server server(counting_model);
  CHECK(chat(server, {"second", "-s", "Be brief.", "--temperature", "0", "--max-tokens", "5",
                      "--seed", "7", "-m", "Hi"})
            .out == "2 messages\n");
  const auto body = text::value::from_json(server.requests().back().body);
  CHECK(*body->find("model")->if_string() == "second");
  CHECK(*body->find("temperature")->if_double() == 0.0);
  CHECK(*body->find("max_tokens")->if_int() == 5);
  CHECK(*body->find("seed")->if_int() == 7);
  CHECK_FALSE(body->find("top_p"));
  CHECK(body->find("messages")->to_json() ==
        R"([{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}])");
}

TEST_CASE("piped lines are turns with a history, which /reset and /system begin anew") {
  const scripted_server server(counting_model);
  const auto run =
      chat(server, {}, "Hi\n\nAgain\n/reset\nHi\n/system Be brief.\nHi\n/exit\nnever\n");
  CHECK(run.status == 0);
  CHECK(run.out == "1 messages\n3 messages\n1 messages\n2 messages\n");
}

TEST_CASE("chat -m - reads one question of several lines from standard input") {
  const scripted_server server(counting_model);
  CHECK(chat(server, {"-m", "-"}, "one\ntwo\n").out == "1 messages\n");
  CHECK(server.requests().back().body.find("one\\ntwo\\n") != std::string::npos);
}

TEST_CASE("chat --json prints each answer as one object") {
  const scripted_server server(counting_model);
  const auto run = chat(server, {"--json"}, "Hi\nAgain\n");
  CHECK(std::ranges::count(run.out, '\n') == 2);
  const auto answer = text::value::from_json(run.out.substr(0, run.out.find('\n')));
  REQUIRE(answer);
  CHECK(*answer->find("text")->if_string() == "1 messages");
  CHECK(*answer->find("finish_reason")->if_string() == "stop");
  CHECK(*answer->find("completion_tokens")->if_int() == 3);
}

TEST_CASE("a refused question is one line on stderr and exit status 1") {
  const scripted_server server([](const seen_request& seen) -> pieces {
    if (seen.target == "/v1/models") return counting_model(seen);
    return {json_reply(400, R"({"error": {"message": "too long", "type": "x"}})")};
  });
  const auto run = chat(server, {"-m", "Hi"});
  CHECK(run.status == 1);
  CHECK(run.out.empty());
  CHECK(run.err == "tandem: " + server.address() + " answered 400: too long\n");
}

TEST_CASE("an error or an end in the middle of a stream is told, not passed off as the answer") {
  for (const bool with_error : {true, false}) {
    const scripted_server server([=](const seen_request& seen) -> pieces {
      if (seen.target == "/v1/models") return counting_model(seen);
      pieces reply = event_reply({text_chunk("half")});
      reply.pop_back();
      if (with_error)
        reply.push_back(chunk("data: {\"error\": {\"message\": \"device lost\"}}\n\n"));
      reply.emplace_back("0\r\n\r\n");
      return reply;
    });
    const auto run = chat(server, {"-m", "Hi"});
    CHECK(run.status == 1);
    CHECK(run.out == "half");
    CHECK(run.err.find(with_error ? "device lost" : "before [DONE]") != std::string::npos);
  }
}

TEST_CASE("a stopped answer is remembered as far as it came, and the next question is answered") {
  const scripted_server server([](const seen_request& seen) -> pieces {
    if (seen.body.find("stop me") == std::string::npos) return counting_model(seen);
    return {event_reply({}).front(), chunk("data: " + text_chunk("half") + "\n\n")};
  });
  using namespace gateway::command;
  auto client = http_client::create(server.address(), "");
  REQUIRE(client);
  chat_session session(std::move(*client), {});
  std::string heard;
  const auto answer = session.ask(
      "stop me", [&](std::string_view text) { heard += text; }, [&] { return !heard.empty(); });
  REQUIRE(answer);
  CHECK(answer->text == "half");
  CHECK(answer->finish_reason.empty());
  CHECK(session.turn_count() == 1);
  session.set_system("x");
  CHECK(session.turn_count() == 0);
  CHECK(session
            .ask(
                "go on", [](std::string_view) {}, [] { return false; })
            ->text == "2 messages");
}

TEST_CASE("no server, and a server without a model, are said in one line") {
  const scripted_server empty(
      [](const seen_request&) { return pieces{json_reply(200, R"({"data": []})")}; });
  CHECK(chat(empty, {"-m", "Hi"}).err == "tandem: " + empty.address() + " serves no model yet\n");
  const auto none = run_command({"chat", "--address", "http://127.0.0.1:1", "-m", "Hi"});
  CHECK(none.status == 1);
  CHECK(none.err.find("nobody listens at http://127.0.0.1:1") != std::string::npos);
}

TEST_CASE("address and key come from the environment when no option gives them") {
  const scripted_server server(counting_model);
  command_world world;
  world.environment = {{"TANDEM_ADDRESS", server.address()}, {"TANDEM_API_KEY", "sk-env"}};
  CHECK(run_command({"chat", "-m", "Hi"}, world).status == 0);
  CHECK(server.requests().back().authorization == "Bearer sk-env");
  CHECK(run_command({"chat", "-m", "Hi", "--api-key", "sk-option"}, world).status == 0);
  CHECK(server.requests().back().authorization == "Bearer sk-option");
}

}  // namespace
