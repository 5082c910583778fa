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

namespace {

// Two devices that can read each other's memory.
struct pair_of_engines {
  explicit pair_of_engines(const scheduler_settings& settings)
      : a(settings), b(settings), memory_a(a.device.memory()), memory_b(b.device.memory()) {
    a.core.set_kv_memory(memory_a);
    b.core.set_kv_memory(memory_b);
  }
  void run_until_idle() {
    while (a.step() || b.step()) {
    }
  }
  engine a;
  engine b;
  std::shared_ptr<const tandem::memory::kv_memory> memory_a;
  std::shared_ptr<const tandem::memory::kv_memory> memory_b;
};

}  // namespace

TEST_CASE("what was computed goes along where the other device can reach it") {
  pair_of_engines both(small());
  REQUIRE(both.a.core.add(ask(1, words(37, 1), 12), 0));
  REQUIRE(both.a.core.add(ask(2, words(21, 2), 12), 0));
  for (int i = 0; i < 6; ++i) both.a.step();
  const auto told = both.a.of(1).tokens.size();
  REQUIRE(told > 0);
  move_all(both.a, both.b);
  both.b.step();
  CHECK(both.b.device.rows_computed == 2);  // the next token of each
  both.run_until_idle();
  CHECK(both.b.ended() == 2);
  CHECK(tokens_of({&both.a, &both.b}, 1, 0) ==
        expected(ask(1, words(37, 1), 12), 0, both.a.longest()).tokens);
}

TEST_CASE("the lender keeps its blocks until they are copied, and no longer") {
  auto settings = small();
  settings.prefix_cache = false;
  pair_of_engines both(settings);
  REQUIRE(both.a.core.add(ask(1, words(60, 1), 12), 0));
  for (int i = 0; i < 4; ++i) both.a.step();
  move_all(both.a, both.b);
  CHECK(both.a.core.counts().blocks_free == settings.kv_blocks - 4);
  both.b.step();
  REQUIRE(both.a.core.add(ask(2, words(20, 2), 2), 0));
  both.a.step();
  CHECK(both.a.core.counts().blocks_free == settings.kv_blocks - 2);
  both.run_until_idle();
  CHECK(both.b.ended() == 1);
}

TEST_CASE("memory that is gone, or laid out otherwise, is computed again") {
  pair_of_engines both(small());
  REQUIRE(both.a.core.add(ask(1, words(37, 1), 12), 0));
  for (int i = 0; i < 6; ++i) both.a.step();
  SECTION("gone") {
    move_all(both.a, both.b);
    both.a.lose_device();
    both.a.core.set_kv_memory(nullptr);
    both.memory_a.reset();
  }
  SECTION("of another layout") {
    auto other = *both.memory_b;
    other.layout = "other";
    both.memory_b = std::make_shared<const tandem::memory::kv_memory>(other);
    both.b.core.set_kv_memory(both.memory_b);
    move_all(both.a, both.b);
  }
  both.b.step();
  CHECK(both.b.device.rows_computed > 2);
  both.run_until_idle();
  CHECK(tokens_of({&both.a, &both.b}, 1, 0) ==
        expected(ask(1, words(37, 1), 12), 0, both.a.longest()).tokens);
}

TEST_CASE("streams that change devices at any moment, whole or alone, have their own words") {
  const auto seed = GENERATE(range(0U, 200U));
  CAPTURE(seed);
  std::mt19937 random(seed);
  const auto one_of = [&](int count) { return static_cast<int>(random() % unsigned(count)); };
  auto settings = small();
  settings.max_queued = 100;
  settings.prefix_cache = one_of(2) == 0;
  pair_of_engines both(settings);
  std::map<request_id, generation_request> asked;
  for (request_id id = 1; id <= 12; ++id) {
    auto request = ask(id, words(5 + one_of(60), one_of(4)), 1 + one_of(30));
    request.choices = 1 + one_of(2);
    asked[id] = request;
  }
  auto next = asked.begin();
  for (int turn = 0; turn < 120; ++turn) {
    engine& from = one_of(2) == 0 ? both.a : both.b;
    engine& to = &from == &both.a ? both.b : both.a;
    if (next != asked.end() && one_of(3) == 0) REQUIRE(from.core.add((next++)->second, 0));
    for (int i = one_of(4); i > 0; --i) from.step();
    for (int i = one_of(3); i > 0; --i) to.step();
    if (one_of(4) == 0) {
      const bool in_step = from.begin();  // it counts for nothing
      static_cast<void>(in_step);
      move_all(from, to);
    } else if (one_of(3) == 0) {
      const auto ids = from.core.running_requests();
      if (!ids.empty()) to.core.adopt(from.core.hand_over(ids.back()));
    }
  }
  both.run_until_idle();
  REQUIRE(next == asked.end());
  for (const auto& [id, request] : asked)
    for (int choice = 0; choice < request.choices; ++choice) {
      CAPTURE(id, choice);
      CHECK(both.a.ends[{id, choice}] + both.b.ends[{id, choice}] == 1);
      CHECK(tokens_of({&both.a, &both.b}, id, choice).size() ==
            expected(request, choice, both.a.longest()).tokens.size());
    }
  for (engine* e : {&both.a, &both.b}) {
    REQUIRE(e->core.add(ask(100, words(3, 1), 1), 0));  // a plan takes back what was lent
    e->run_until_idle();
    CHECK(e->core.counts().blocks_free == settings.kv_blocks);
  }
}
