#include "gateway/command/load_generator.hpp"
#include "runtime/text/value.hpp"
#include "tests/support/command_run.hpp"
#include "tests/support/scripted_server.hpp"

#include <catch2/catch.hpp>

#include <set>

namespace {

using namespace tandem;
using namespace tandem::tests;
using gateway::command::quantile;
using pieces = std::vector<std::string>;

const text::value& member(const text::value& object, std::string_view key) {
  const text::value* found = object.find(key);
  REQUIRE(found);
  return *found;
}

// Answers with three tokens in three events.
pieces three_tokens(const seen_request& seen) {
  if (seen.target == "/v1/models") {
    return {json_reply(200, R"({"data": [{"id": "m", "vocab_size": 1000}]})")};
  }
  const std::string one = R"({"choices": [{"index": 0, "text": "x"}]})";
  return event_reply(
      {one, one, one, R"({"choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 3}})"});
}

TEST_CASE("a quantile is the nearest rank") {
  CHECK(quantile({}, 0.5) == 0);
  CHECK(quantile({7}, 0.99) == 7);
  CHECK(quantile({4, 1, 3, 2}, 0.5) == 2);
  CHECK(quantile({4, 1, 3, 2}, 0.51) == 3);
  CHECK(quantile({4, 1, 3, 2}, 1.0) == 4);
}

TEST_CASE("bench serve asks so many times and counts tokens, first tokens and gaps") {
  const scripted_server server(three_tokens);
  const auto run =
      run_command({"bench", "serve", "--address", server.address(), "--requests", "7", "--streams",
                   "3", "--prompt-tokens", "8", "--max-tokens", "3", "--json"});
  CHECK(run.err.empty());
  CHECK(run.status == 0);
  const auto report = text::value::from_json(run.out);
  REQUIRE(report);
  CHECK(member(*report, "answered") == text::value(7));
  CHECK(member(*report, "failed") == text::value(0));
  const double wall = *member(*report, "wall_s").if_double();
  CHECK(*member(*report, "output_tokens_per_s").if_double() == Approx(21 / wall));
  CHECK(*member(*report, "requests_per_s").if_double() == Approx(7 / wall));
  CHECK(member(member(*report, "ttft_ms"), "p50").if_double());
}

TEST_CASE(
    "the prompts of a bench are of the asked length, within the vocabulary, and all different") {
  const scripted_server server(three_tokens);
  CHECK(run_command({"bench", "serve", "--address", server.address(), "--requests", "5",
                     "--streams", "2", "--prompt-tokens", "8", "--max-tokens", "3"})
            .status == 0);
  std::set<std::string> prompts;
  for (const seen_request& seen : server.requests()) {
    if (seen.target != "/v1/completions") continue;
    const auto body = text::value::from_json(seen.body);
    REQUIRE(body);
    prompts.insert(member(*body, "prompt").to_json());
    const auto& ids = *member(*body, "prompt").if_array();
    CHECK(ids.size() == 8);
    for (const text::value& id : ids) CHECK((*id.if_int() >= 0 && *id.if_int() < 1000));
  }
  // The warm-up repeats the first prompt of the first stream.
  CHECK(prompts.size() == 5);
}

TEST_CASE("a server that refuses is told at once, before any load") {
  const scripted_server server([](const seen_request& seen) -> pieces {
    if (seen.target == "/v1/models") return three_tokens(seen);
    return {json_reply(503, R"({"error": {"message": "draining"}})")};
  });
  const auto run = run_command({"bench", "serve", "--address", server.address()});
  CHECK(run.status == 1);
  CHECK(run.out.empty());
  CHECK(run.err == "tandem: " + server.address() + " answered 503: draining\n");
}

TEST_CASE("failures under load are counted and end with exit status 1") {
  std::atomic<int> asked{0};
  const scripted_server server([&](const seen_request& seen) -> pieces {
    if (seen.target == "/v1/models" || asked++ < 3) return three_tokens(seen);
    return {json_reply(429, R"({"error": {"message": "queue full"}})")};
  });
  const auto run = run_command({"bench", "serve", "--address", server.address(), "--requests", "4",
                                "--streams", "1", "--json"});
  CHECK(run.status == 1);
  const auto report = text::value::from_json(run.out);
  REQUIRE(report);
  CHECK(member(*report, "answered") == text::value(2));
  CHECK(member(*report, "failed") == text::value(2));
  CHECK(run.err.find("2 requests failed, first: " + server.address() +
                     " answered 429: queue full") != std::string::npos);
}

TEST_CASE("a model that is not served is refused by name") {
  const scripted_server server(three_tokens);
  const auto run =
      run_command({"bench", "serve", "--address", server.address(), "--model", "other"});
  CHECK(run.status == 1);
  CHECK(run.err.find("does not serve \"other\"") != std::string::npos);
}

}  // namespace
