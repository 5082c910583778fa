// Plans made while a step runs, before it is known what that draws.
#include "tests/serve/fake_device.hpp"

#include <catch2/catch.hpp>

using namespace tandem::serve;
using namespace tandem::serve::testing;

TEST_CASE("while a step draws for everybody the next one is planned, and goes on from its draws") {
  engine e(roomy());
  const generation_request r = endless(1, 20, 6, 1);
  const generation_request other = endless(2, 9, 40, 2);
  REQUIRE(e.core.add(r, 0));
  REQUIRE(e.core.add(other, 0));
  REQUIRE(e.begin());
  CHECK(e.plan_ahead());  // the last rows of both prompts draw
  REQUIRE(e.ahead->chunks.size() == 2);
  CHECK(e.ahead->follows == e.plan.number);
  CHECK(e.ahead->chunks.front().tokens == std::vector<token_id>{drawn_before});
  CHECK(e.ahead->chunks.front().first_position == 20);
  CHECK_FALSE(e.core.schedule_ahead());  // one ahead, no more
  for (int i = 0; i < 4; ++i) {
    e.finish();
    REQUIRE(e.begin());
    CHECK(e.plan_ahead());
  }
  // The fifth step in flight, the sixth planned: the last token of the first request.
  CHECK(e.ahead->chunks.size() == 2);
  e.finish();
  REQUIRE(e.begin());
  REQUIRE(e.plan_ahead());
  CHECK(e.ahead->chunks.size() == 1);  // who ends by length has no row for nothing
  e.finish();
  CHECK(e.of(1) == expected(r, 0, e.longest()));
  e.run_until_idle();
  check_text(e, other);
  CHECK(e.core.counts().blocks_free == 2000);
}

TEST_CASE("nothing is planned ahead of a prompt to read, or where somebody could start") {
  scheduler_settings s = roomy();
  s.max_batch_tokens = 16;
  engine e(s);
  REQUIRE(e.core.add(endless(1, 40, 30, 1), 0));
  REQUIRE(e.begin());
  CHECK_FALSE(e.plan_ahead());  // sixteen of forty
  e.finish();
  e.step();
  REQUIRE(e.begin());
  REQUIRE(e.plan_ahead());
  const generation_request late = endless(2, 3, 5, 2);
  REQUIRE(e.core.add(late, e.now));
  CHECK(e.core.wants_place());
  e.take_back();
  e.finish();
  REQUIRE(e.begin());
  CHECK(e.plan.chunks.size() == 2);  // it starts as if nothing had been planned
  CHECK_FALSE(e.core.wants_place());
  e.run_until_idle();
  check_text(e, late);
}

TEST_CASE("who waits for a place gets the one of a text that ends by length at once") {
  scheduler_settings s = roomy();
  s.max_sequences = 1;
  engine e(s);
  REQUIRE(e.core.add(endless(1, 3, 3, 1), 0));
  REQUIRE(e.core.add(endless(2, 3, 3, 2), 0));
  REQUIRE(e.begin());
  REQUIRE(e.plan_ahead());  // no place is free, and nobody ends
  e.finish();
  REQUIRE(e.begin());
  CHECK(e.plan_ahead());
  e.finish();
  REQUIRE(e.begin());
  CHECK_FALSE(e.plan_ahead());  // this one draws its last token
  e.finish();
  REQUIRE(e.begin());
  CHECK(e.plan.starts.size() == 1);
  e.run_until_idle();
  check_text(e, endless(2, 3, 3, 2));
}

TEST_CASE("an end token leaves a row for nothing in the step planned ahead") {
  engine e(roomy());
  generation_request r = ask(3, words(10), 5000);
  r.stops.eos_ids = {end_of_text};
  REQUIRE(e.core.add(r, 0));
  while (e.begin()) {
    e.plan_ahead();
    e.finish();
    if (e.ends[{3, 0}] == 1 && e.core.knows(3)) break;  // its row is still in flight
  }
  CHECK(e.core.knows(3));
  CHECK(e.core.counts().running == 1);
  e.finish();
  check_text(e, r);
  CHECK_FALSE(e.core.knows(3));
  CHECK(e.core.idle());
  CHECK(e.core.counts().blocks_free == 2000);
}

TEST_CASE("a plan ahead in which everybody has ended is for nothing") {
  engine e(roomy());
  REQUIRE(e.core.add(endless(1, 5, 30, 1), 0));
  REQUIRE(e.core.add(endless(2, 5, 30, 2), 0));
  REQUIRE(e.begin());
  REQUIRE(e.plan_ahead());
  e.core.cancel(1);
  CHECK_FALSE(e.core.ahead_for_nothing());
  e.core.cancel(2);
  CHECK(e.core.ahead_for_nothing());
  e.take_back();
  e.finish();
  CHECK(e.core.idle());
  CHECK(e.core.counts().blocks_free == 2000);
}

TEST_CASE("draws are put where a plan made ahead asks for them, by slot") {
  const auto drew = [](slot_index slot, token_id id) {
    sampled_token token;
    token.slot = slot;
    token.token.id = id;
    return token;
  };
  step_plan plan;
  plan.chunks = {{4, 7, {drawn_before}, {}, true, false, {}},
                 {1, 3, {drawn_before}, {}, true, false, {}}};
  step_plan missing = plan;
  REQUIRE(fill_drawn(plan, {drew(9, 50), drew(4, 51), drew(1, 52)}));
  CHECK(plan.chunks[0].tokens == std::vector<token_id>{51});
  CHECK(plan.chunks[1].tokens == std::vector<token_id>{52});
  CHECK_FALSE(fill_drawn(missing, {drew(4, 51)}));
}
