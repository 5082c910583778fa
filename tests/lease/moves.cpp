#include "runtime/lease/move_plan.hpp"
#include "runtime/lease/mover.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::lease;

TEST_CASE("a device in service is asked back before it is lent to training alone") {
  CHECK(next_action({role::serve, role::train, stage::still, true}) == move_action::release);
  CHECK(next_action({role::serve, role::shared, stage::still, true}) == move_action::lend);
  CHECK(next_action({role::train, role::serve, stage::still, false}) == move_action::lend);
  CHECK(next_action({role::serve, role::train, stage::still, false}) == move_action::lend);
  CHECK(next_action({role::serve, role::serve, stage::still, true}) == move_action::none);
  CHECK(next_action({role::serve, role::serve, stage::still, true, true}) == move_action::lend);
}

TEST_CASE("a wish that changes while the device is asked back takes the order back, once") {
  CHECK(next_action({role::serve, role::train, stage::releasing, true}) == move_action::none);
  CHECK(next_action({role::serve, role::serve, stage::releasing, true}) == move_action::take_back);
  CHECK(next_action({role::serve, role::shared, stage::releasing, true}) == move_action::take_back);
  CHECK(next_action({role::serve, role::train, stage::taking_back, true}) == move_action::none);
  CHECK(next_action({role::train, role::serve, stage::taking, false}) == move_action::none);
}

namespace {

move_order opening() {
  move_order order;
  order.device = "cpu:1";
  order.from = role::serve;
  order.to = role::shared;
  order.capacity = 1000;
  order.used[0] = 300;  // weights
  order.used[2] = 200;  // KV blocks
  order.job = "ftjob-1";
  order.job_bytes = 600;
  return order;
}

}  // namespace

TEST_CASE("a job that lies on the device already moves nothing") {
  auto order = opening();
  order.job_bytes = 0;
  const auto plan = plan_move(order);
  REQUIRE(plan);
  CHECK(plan->stays == 500);
  CHECK(plan->comes == 0);
  CHECK(plan->peak == 500);
}

TEST_CASE("weights that both roles use are counted once") {
  auto order = opening();
  order.shared_bytes = 300;
  const auto plan = plan_move(order);
  REQUIRE(plan);
  CHECK(plan->comes == 300);
  CHECK(plan->peak == 800);
}

TEST_CASE("a move that does not fit is refused with the numbers, or drops what nobody would miss") {
  auto order = opening();
  const auto refused = plan_move(order);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::no_memory);
  CHECK(refused.error().detail ==
        "cpu:1 cannot go from serve to shared: ftjob-1 needs 600 bytes there, 500 of 1000 are free "
        "(weights 300, kv_blocks 200), 0 could be dropped; 100 bytes are missing: raise "
        "devices.memory_fraction, or give KV blocks less (model.kv_memory)");
  order.droppable[2] = 200;
  const auto plan = plan_move(order);
  REQUIRE(plan);
  CHECK(plan->dropped == 100);
  CHECK(plan->stays == 400);
  CHECK(plan->peak == 1000);
}
