// Requests that move between schedulers while they run.
#include "tests/serve/fake_device.hpp"

#include <catch2/catch.hpp>

#include <random>

using namespace tandem::serve;
using namespace tandem::serve::testing;

namespace {

scheduler_settings small() {
  scheduler_settings s;
  s.max_sequences = 6;
  s.max_batch_tokens = 64;
  s.prefill_chunk_tokens = 24;
  s.context_length = 200;
  s.kv_blocks = 24;
  s.max_queued = 4;
  return s;
}

void move_all(engine& from, engine& to) {
  for (auto& handed : from.core.hand_over_all()) to.core.adopt(std::move(handed));
  from.device.forget();
}

// Both engines' events of one choice, in the order they came: the first one's tokens first.
std::vector<token_id> tokens_of(std::initializer_list<engine*> engines, request_id id, int choice) {
  std::vector<token_id> all;
  for (engine* e : engines) {
    const auto& part = e->outcomes[{id, choice}].tokens;
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

}  // namespace

TEST_CASE("a request handed over in the middle goes on with the same bits, each choice of it") {
  engine a(small());
  engine b(small());
  auto request = ask(1, words(40, 1), 30);
  request.choices = 3;
  request.stops.min_tokens = 5;
  request.stops.eos_ids = {end_of_text};
  request.sampling.prompt_logprobs = 0;
  REQUIRE(a.core.add(request, 0));
  for (int i = 0; i < 8; ++i) a.step();
  REQUIRE(a.begin());  // this one counts for nothing
  move_all(a, b);
  CHECK(a.core.idle());
  CHECK(a.core.counts().blocks_free == small().kv_blocks);
  b.run_until_idle();
  for (int choice = 0; choice < 3; ++choice) {
    CAPTURE(choice);
    CHECK(tokens_of({&a, &b}, 1, choice) == expected(request, choice, a.longest()).tokens);
  }
  // Handed out once, by whoever had read the prompt.
  CHECK(a.scores.size() + b.scores.size() == 1);
}

TEST_CASE("an accepted request is not refused where the queue is full, and keeps its age") {
  engine a(small());
  engine b(small());
  a.now = 5;
  for (request_id id = 1; id <= 4; ++id) REQUIRE(a.core.add(ask(id, words(20, 1), 4), a.now));
  for (request_id id = 11; id <= 14; ++id) REQUIRE(b.core.add(ask(id, words(20, 2), 4), 9));
  REQUIRE_FALSE(b.core.add(ask(15, words(20, 2), 4), 9));
  move_all(a, b);
  CHECK(b.core.counts().queued == 8);
  CHECK(b.core.unread_requests() == std::vector<request_id>{1, 2, 3, 4, 11, 12, 13, 14});
  b.run_until_idle();
  CHECK(b.ended() == 8);
}

TEST_CASE("a device that comes back finds the prefixes it had") {
  engine a(small());
  engine b(small());
  REQUIRE(a.core.add(ask(1, words(64, 1), 20), 0));
  for (int i = 0; i < 6; ++i) a.step();
  move_all(a, b);
  b.step();
  move_all(b, a);
  const auto computed = a.core.counts().prompt_tokens_computed;
  a.run_until_idle();
  CHECK(a.core.counts().prompt_tokens_computed == computed);  // the prompt was not read again
  CHECK(tokens_of({&a}, 1, 0).size() + tokens_of({&b}, 1, 0).size() == 20);
}

TEST_CASE("one that has a slot and nothing read can leave alone, one that is read cannot") {
  auto settings = small();
  settings.max_batch_tokens = 8;
  engine a(settings);
  engine b(settings);
  for (request_id id = 1; id <= 4; ++id)
    REQUIRE(a.core.add(ask(id, words(20, static_cast<int>(id)), 10), 0));
  a.step();
  REQUIRE(a.core.counts().running == 4);
  CHECK(a.core.reads_prompts());
  const auto unread = a.core.unread_requests();
  REQUIRE_FALSE(unread.empty());
  REQUIRE(unread.size() < 4);
  for (const auto id : unread) b.core.adopt(a.core.hand_over(id));
  CHECK(a.core.unread_requests().empty());
  a.run_until_idle();
  b.run_until_idle();
  CHECK(a.ended() + b.ended() == 4);
  CHECK(b.ended() == static_cast<int>(unread.size()));
  CHECK_FALSE(b.core.reads_prompts());
}

TEST_CASE("one that waits can leave alone") {
  engine a(small());
  engine b(small());
  for (request_id id = 1; id <= 7; ++id) {
    REQUIRE(a.core.add(ask(id, words(20, 1), 10), 0));
    a.step();
  }
  REQUIRE(a.core.unread_requests() == std::vector<request_id>{7});
  b.core.adopt(a.core.hand_over(7));
  a.run_until_idle();
  b.run_until_idle();
  CHECK(a.ended() == 6);
  CHECK(b.ended() == 1);
}
