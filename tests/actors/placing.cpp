// Where a new request goes: to the device that knows its beginning, unless the load says otherwise.
#include "runtime/serve/placement.hpp"
#include "tests/support/actor_world.hpp"

#include <catch2/catch.hpp>

#include <cstddef>
#include <vector>

using namespace tandem;
using namespace tandem::test;

namespace {

// 96 tokens that many prompts begin with, and one of its own.
serve::generation_request with_beginning(serve::request_id id, int tokens) {
  std::vector<serve::token_id> prompt;
  for (int i = 0; i < 96; ++i) prompt.push_back(i % 50);
  prompt.push_back(static_cast<serve::token_id>(50 + id % 40));
  return request_of(id, prompt, tokens);
}

}  // namespace

TEST_CASE("a known beginning outweighs other sequences by its length, and no more than eight") {
  CHECK(serve::placing_cost(3, 64, 0) == 3);
  CHECK(serve::placing_cost(3, 64, 63) == 3);
  CHECK(serve::placing_cost(3, 64, 128) == 1);
  CHECK(serve::placing_cost(9, 64, 100'000) == 1);
  CHECK(serve::placing_cost(64, 64, 100'000) == 64);
}

TEST_CASE("requests with one beginning go where it lies") {
  serving_world world({"cpu:0", "cpu:1"}, {});
  world.ask(request_of(1, {7, 7, 7}, 100));  // takes the first device
  world.ask(with_beginning(2, 5));           // so this goes to the second
  world.settle();
  for (serve::request_id id = 3; id < 9; ++id) {
    world.ask(with_beginning(id, 5));
    world.settle();
    CHECK(world.replies[{id, 0}].tokens == expected_tokens(with_beginning(id, 5).prompt, 5));
  }
  const auto lanes = world.board->newest()->lanes;
  CHECK(lanes[0].counts.prompt_tokens_computed == 3);
  CHECK(lanes[1].counts.prompt_tokens_cached == 6 * 96);
  CHECK(lanes[1].counts.prompt_tokens_computed == 97 + 6);
}

TEST_CASE("a device is not buried under a beginning that everybody has") {
  serving_world world({"cpu:0", "cpu:1"}, {});
  world.ask(with_beginning(1, 5));
  world.settle();
  for (serve::request_id id = 2; id < 22; ++id) world.ask(with_beginning(id, 50));
  world.settle();
  for (serve::request_id id = 2; id < 22; ++id)
    CHECK(world.replies[{id, 0}].tokens == expected_tokens(with_beginning(id, 50).prompt, 50));
  const auto report = world.board->newest();
  REQUIRE(report);
  for (const auto& lane : report->lanes) CHECK(lane.counts.tokens_generated > 20 * 50 / 3);
}
