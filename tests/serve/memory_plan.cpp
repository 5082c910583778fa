#include "runtime/serve/memory_plan.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::serve;

namespace {
// 1,000 bytes a block of 16 positions.
memory_needs needs() {
  return {.capacity_bytes = 10'000'000,
          .weight_bytes = 1'000'000,
          .activation_bytes = 500'000,
          .kv_block_bytes = 1'000,
          .model_context = 1'600,
          .wanted_context = 0,
          .wanted_kv_bytes = 0};
}
}  // namespace

TEST_CASE("auto KV holds eight sequences of the whole context when they fit") {
  auto plan = plan_memory(needs());
  REQUIRE(plan);
  CHECK(plan->context_length == 1'600);
  CHECK(plan->kv_blocks == 800);
}

TEST_CASE("auto KV takes at most half of what is left, but one whole context if it can") {
  auto n = needs();
  n.capacity_bytes = 1'700'000;  // 200,000 left; a context takes 100,000
  auto plan = plan_memory(n);
  REQUIRE(plan);
  CHECK(plan->kv_blocks == 100);
  n.capacity_bytes = 1'620'000;  // 120,000 left
  plan = plan_memory(n);
  REQUIRE(plan);
  CHECK(plan->kv_blocks == 100);
  CHECK(plan->context_length == 1'600);
}

TEST_CASE("a context nobody asked for shrinks to the blocks there are") {
  auto n = needs();
  n.wanted_kv_bytes = 50'000;
  auto plan = plan_memory(n);
  REQUIRE(plan);
  CHECK(plan->kv_blocks == 50);
  CHECK(plan->context_length == 800);
}

TEST_CASE("what does not fit is refused with the numbers and the setting to change") {
  auto n = needs();
  n.wanted_context = 1'700;
  CHECK(plan_memory(n).error().param == "model.context_length");
  n = needs();
  n.wanted_context = 1'600;
  n.wanted_kv_bytes = 50'000;
  auto refused = plan_memory(n);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::no_memory);
  CHECK(refused.error().detail.find("800 tokens") != std::string::npos);
  n = needs();
  n.wanted_kv_bytes = 9'000'000;
  CHECK(plan_memory(n).error().param == "model.kv_memory");
  n = needs();
  n.capacity_bytes = 1'400'000;
  CHECK(plan_memory(n).error().param == "devices.memory_fraction");
  n = needs();
  n.capacity_bytes = 1'501'000;  // one block
  CHECK_FALSE(plan_memory(n));
}
