#include "runtime/serve/scheduler.hpp"

#include "tests/serve/fake_device.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <iostream>

using namespace tandem;
using namespace tandem::serve;
using namespace tandem::serve::testing;

namespace {

int rows_of(const step_plan& plan, int first, int last) {
  int rows = 0;
  for (const auto& chunk : plan.chunks) {
    const int size = static_cast<int>(chunk.tokens.size());
    if (size >= first && size <= last) rows += size;
  }
  return rows;
}

}  // namespace

TEST_CASE("a request is read, generated and ended, with its totals") {
  engine e(roomy());
  generation_request r = endless(1, 40, 5, 1);
  REQUIRE(e.core.add(r, 0));
  e.now = 30'000'000;
  e.run_until_idle();
  check_text(e, r);
  const auto& last = e.last.at({1, 0});
  CHECK(last.prompt_tokens == 40);
  CHECK(last.completion_tokens == 5);
  CHECK(last.cached_tokens == 0);
  CHECK(last.queued_ns == 30'000'000);
  CHECK(last.finish == finish_reason::length);
  CHECK(e.steps == 5);
  CHECK(e.core.counts().blocks_free == 2000);
  CHECK(e.core.schedule(e.now).chunks.empty());
}

TEST_CASE("an end token ends the text, is counted, and is not part of it") {
  engine e(roomy());
  generation_request r = ask(3, words(10), 5000);
  r.stops.eos_ids = {end_of_text};
  REQUIRE(e.core.add(r, 0));
  e.run_until_idle();
  check_text(e, r);
  const auto& last = e.last.at({3, 0});
  CHECK(last.stop_token == end_of_text);
  CHECK(last.completion_tokens == static_cast<int>(e.of(3).tokens.size()) + 1);
  CHECK(std::count(e.of(3).tokens.begin(), e.of(3).tokens.end(), end_of_text) == 0);
}

TEST_CASE("before min_tokens no end can be drawn; with ignore_eos it is drawn and ends nothing") {
  engine e(roomy());
  generation_request late = ask(1, words(10), 5000);
  late.stops.eos_ids = {end_of_text};
  late.stops.min_tokens = 200;
  generation_request deaf = ask(2, words(12), 400);
  deaf.stops.eos_ids = {end_of_text};
  deaf.stops.ignore_eos = true;
  REQUIRE(e.core.add(late, 0));
  REQUIRE(e.core.add(deaf, 0));
  e.run_until_idle();
  check_text(e, late);
  check_text(e, deaf);
  CHECK(e.of(1).tokens.size() >= 200);
  CHECK(e.of(2).tokens.size() == 400);
  CHECK(std::count(e.of(2).tokens.begin(), e.of(2).tokens.end(), end_of_text) > 0);
}

TEST_CASE("a long prompt never starves short ones, and no decode skips a step because of it") {
  engine e(roomy());
  std::vector<generation_request> streams;
  for (request_id id = 1; id <= 16; ++id) {
    streams.push_back(endless(id, 30, 120, static_cast<int>(id)));
    REQUIRE(e.core.add(streams.back(), 0));
  }
  for (int i = 0; i < 5; ++i) e.step();
  const generation_request big = endless(100, 4000, 3, 100);
  REQUIRE(e.core.add(big, e.now));
  e.step();
  const generation_request small = endless(101, 50, 3, 101);
  REQUIRE(e.core.add(small, e.now));
  const int asked_at = e.steps;
  while (!e.first_token_step.contains(100)) {
    REQUIRE(e.begin());
    // One row for each of the streams, and at most 128 of prompts beside them.
    if (e.first_token_step.contains(101)) {
      CHECK(e.plan.rows() <= 16 + 1 + 128);
    } else {
      CHECK(rows_of(e.plan, 1, 1) == 16);
    }
    e.finish();
  }
  CHECK(e.first_token_step.at(101) == asked_at + 1);
  CHECK(e.first_token_step.at(100) <= asked_at + 4000 / 128 + 2);
  e.run_until_idle();
  for (const auto& r : streams) check_text(e, r);
  check_text(e, big);
  check_text(e, small);
}

TEST_CASE("alone, a prompt uses the whole step") {
  engine e(roomy());
  REQUIRE(e.core.add(endless(1, 2000, 1, 1), 0));
  REQUIRE(e.begin());
  CHECK(e.plan.rows() == 512);
  e.finish();
  e.run_until_idle();
  CHECK(e.steps == 4);
}

TEST_CASE("a known beginning is not read again, and the whole prompt never comes from the cache") {
  engine e(roomy());
  REQUIRE(e.core.add(endless(1, 64, 4, 7), 0));
  e.run_until_idle();
  const generation_request same = endless(2, 64, 4, 7);
  generation_request longer = endless(3, 100, 4, 7);
  REQUIRE(e.core.add(same, e.now));
  REQUIRE(e.core.add(longer, e.now));
  e.run_until_idle();
  check_text(e, same);
  check_text(e, longer);
  CHECK(e.last.at({2, 0}).cached_tokens == 48);  // 64 are known; the last row must be computed
  CHECK(e.last.at({3, 0}).cached_tokens == 64);
  CHECK(e.core.counts().prompt_tokens_cached == 48 + 64);
}

TEST_CASE("generated text is found again by the next turn of a conversation") {
  engine e(roomy());
  const generation_request first = endless(1, 40, 40, 3);
  REQUIRE(e.core.add(first, 0));
  e.run_until_idle();
  generation_request next = ask(2, first.prompt, 4);
  next.prompt.insert(next.prompt.end(), e.of(1).tokens.begin(), e.of(1).tokens.end());
  for (const token_id t : words(10, 99)) next.prompt.push_back(t);
  REQUIRE(e.core.add(next, e.now));
  e.run_until_idle();
  check_text(e, next);
  CHECK(e.last.at({2, 0}).cached_tokens == 64);  // of 80: the last token was never computed
}

TEST_CASE("prefixes are shared only under equal salts and weights, and only by who wants to") {
  engine e(roomy());
  REQUIRE(e.core.add(endless(1, 64, 2, 7), 0));
  e.run_until_idle();
  const auto cached_of = [&](generation_request r) {
    REQUIRE(e.core.add(r, e.now));
    e.run_until_idle();
    return e.last.at({r.id, 0}).cached_tokens;
  };
  generation_request salted = endless(2, 64, 2, 7);
  salted.cache_salt = "tenant";
  CHECK(cached_of(salted) == 0);
  generation_request refusing = endless(3, 64, 2, 7);
  refusing.use_prefix_cache = false;
  CHECK(cached_of(refusing) == 0);
  CHECK(cached_of(endless(4, 64, 2, 7)) == 48);
  e.core.set_weights_version(2);
  CHECK(cached_of(endless(5, 64, 2, 7)) == 0);
  CHECK(cached_of(endless(6, 64, 2, 7)) == 48);
}

TEST_CASE("what runs across new weights leaves nothing in the cache") {
  engine e(roomy());
  REQUIRE(e.core.add(endless(1, 64, 40, 7), 0));
  for (int i = 0; i < 3; ++i) e.step();
  e.core.set_weights_version(2);
  e.run_until_idle();
  REQUIRE(e.core.add(endless(2, 64, 2, 7), e.now));
  e.run_until_idle();
  CHECK(e.last.at({2, 0}).cached_tokens == 0);
}

TEST_CASE("of many prompts with one beginning that arrive together, one reads it") {
  engine e(roomy());
  std::vector<generation_request> all;
  for (request_id id = 1; id <= 8; ++id) {
    generation_request r = endless(id, 480, 3, 5);
    for (const token_id t : words(20, 50 + static_cast<int>(id))) r.prompt.push_back(t);
    all.push_back(r);
    REQUIRE(e.core.add(r, 0));
  }
  e.run_until_idle();
  for (const auto& r : all) check_text(e, r);
  // 500 once, then 20 each.
  CHECK(e.core.counts().prompt_tokens_computed == 500 + 7 * 20);
}

TEST_CASE("choices share the prompt: it is read once, with the prefix cache on and off") {
  for (const bool cache : {true, false}) {
    scheduler_settings settings = roomy();
    settings.prefix_cache = cache;
    engine e(settings);
    generation_request r = endless(1, 100, 20, 4);
    r.choices = 5;
    REQUIRE(e.core.add(r, 0));
    e.step();
    e.step();
    // 100 positions take 7 blocks; the other four share 6 of them and have one of their own.
    CHECK(e.core.counts().blocks_total - e.core.counts().blocks_free == 7 + 4);
    e.run_until_idle();
    check_text(e, r);
    CHECK(e.core.counts().prompt_tokens_computed == 100 + 4 * 4);
    CHECK(e.of(1, 0).tokens != e.of(1, 1).tokens);
  }
}

TEST_CASE("blocks run out: the newest sequence is read again and its text is the same") {
  for (const bool cache : {true, false}) {
    scheduler_settings settings = roomy();
    settings.kv_blocks = 12;
    settings.prefix_cache = cache;
    engine e(settings);
    const generation_request old = endless(1, 40, 100, 1);
    const generation_request young = endless(2, 40, 100, 2);
    REQUIRE(e.core.add(old, 0));
    REQUIRE(e.core.add(young, 0));
    e.run_until_idle();
    check_text(e, old);
    check_text(e, young);
    CHECK(e.core.counts().preemptions > 0);
    CHECK(e.last.at({2, 0}).cached_tokens == 0);  // its own return is not a hit of the user's
    CHECK(e.steps > 100);
    CHECK(e.core.counts().blocks_free == 12);
  }
}

TEST_CASE("who gives way is the least urgent, whoever came first") {
  scheduler_settings settings = roomy();
  settings.kv_blocks = 12;
  engine e(settings);
  generation_request patient = endless(1, 40, 100, 1);
  patient.priority = 5;
  const generation_request urgent = endless(2, 40, 100, 2);
  REQUIRE(e.core.add(patient, 0));
  e.step();
  REQUIRE(e.core.add(urgent, 0));
  int urgent_end = 0;
  int patient_end = 0;
  while (e.step()) {
    if (urgent_end == 0 && e.ends[{2, 0}] == 1) urgent_end = e.steps;
    if (patient_end == 0 && e.ends[{1, 0}] == 1) patient_end = e.steps;
  }
  CHECK(urgent_end == 101);
  CHECK(patient_end > urgent_end);
  check_text(e, patient);
  check_text(e, urgent);
}

TEST_CASE("a text that fills all memory or the whole context ends with reason length") {
  scheduler_settings settings = roomy();
  settings.kv_blocks = 4;
  engine memory_bound(settings);
  const generation_request r = endless(1, 40, 1000, 1);
  REQUIRE(memory_bound.core.add(r, 0));
  memory_bound.run_until_idle();
  CHECK(memory_bound.of(1).tokens.size() == 64 + 1 - 40);
  check_text(memory_bound, r);

  settings = roomy();
  settings.context_length = 50;
  engine context_bound(settings);
  REQUIRE(context_bound.core.add(r, 0));
  context_bound.run_until_idle();
  CHECK(context_bound.of(1).tokens.size() == 10);
  CHECK(context_bound.of(1).finish == finish_reason::length);
}

TEST_CASE("what can never run is refused with the numbers") {
  scheduler_settings settings = roomy();
  settings.context_length = 100;
  settings.kv_blocks = 5;
  scheduler s(settings);
  const auto too_long = s.add(ask(1, words(120), 10), 0);
  REQUIRE_FALSE(too_long);
  CHECK(too_long.error().code == errc::context_length_exceeded);
  const auto too_big = s.add(ask(1, words(90), 10), 0);
  REQUIRE_FALSE(too_big);
  CHECK(too_big.error().detail.find("maximum context length is 80 tokens (all its KV memory). "
                                    "However, you requested 100 tokens (90 in the messages, 10 in "
                                    "the completion)") != std::string::npos);
  const auto empty = s.add(ask(1, {}), 0);
  REQUIRE_FALSE(empty);
  CHECK(empty.error().code == errc::bad_request);
  generation_request none = ask(1, words(5));
  none.choices = 0;
  CHECK_FALSE(s.add(none, 0));
  CHECK(s.idle());
  CHECK(s.add(ask(1, words(80), 10), 0));
  CHECK(s.add(ask(1, words(5)), 0).error().code == errc::conflict);
}

TEST_CASE("a full queue refuses as overloaded, and takes again once one has started") {
  scheduler_settings settings = roomy();
  settings.max_queued = 2;
  settings.max_sequences = 1;
  engine e(settings);
  REQUIRE(e.core.add(endless(1, 10, 3, 1), 0));
  REQUIRE(e.core.add(endless(2, 10, 3, 2), 0));
  const auto refused = e.core.add(endless(3, 10, 3, 3), 0);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::overloaded);
  CHECK(refused.error().detail.find("2 of 2") != std::string::npos);
  e.step();
  REQUIRE(e.core.add(endless(3, 10, 3, 3), 0));
  e.core.cancel(2);
  REQUIRE(e.core.add(endless(4, 10, 3, 4), 0));
  e.run_until_idle();
  CHECK(e.ended() == 3);
}

TEST_CASE("a prompt is scored once, whole, also when it is read in pieces or put off") {
  for (const int logit_rows : {3, 64}) {
    scheduler_settings settings = roomy();
    settings.max_batch_tokens = 16;
    settings.max_logit_rows = logit_rows;
    engine e(settings);
    REQUIRE(e.core.add(endless(1, 50, 2, 6), 0));
    e.run_until_idle();
    generation_request r = endless(2, 50, 0, 6);  // lm-eval: nothing to generate, scores wanted
    r.sampling.prompt_logprobs = 1;
    REQUIRE(e.core.add(r, e.now));
    e.run_until_idle();
    CHECK(e.scores.at({2, 0}) == expected_scores(r.prompt));
    CHECK(e.of(2).tokens.empty());
    CHECK(e.of(2).finish == finish_reason::length);
    CHECK(e.last.at({2, 0}).cached_tokens == 0);
  }
}

TEST_CASE("a cancelled request says nothing more and gives its blocks back after the step") {
  engine e(roomy());
  generation_request r = endless(1, 100, 50, 1);
  r.choices = 3;
  REQUIRE(e.core.add(r, 0));
  for (int i = 0; i < 4; ++i) e.step();
  REQUIRE(e.begin());
  e.core.cancel(1);
  const auto tokens_before = e.of(1, 1).tokens.size();
  e.finish();
  CHECK(e.of(1, 1).tokens.size() == tokens_before);
  CHECK(e.core.counts().blocks_free == 2000);
  CHECK(e.core.idle());
  e.core.cancel(1);
  e.core.cancel(77);
  CHECK(e.ended() == 0);
}

TEST_CASE("one choice can be ended from outside while the others go on") {
  engine e(roomy());
  generation_request r = endless(1, 20, 10, 1);
  r.choices = 2;
  REQUIRE(e.core.add(r, 0));
  for (int i = 0; i < 4; ++i) e.step();
  e.core.finish_choice(1, 0);
  e.core.finish_choice(1, 9);
  const auto size = e.of(1, 0).tokens.size();
  e.run_until_idle();
  CHECK(e.of(1, 0).tokens.size() == size);
  CHECK(e.of(1, 0).finish == finish_reason::none);
  CHECK(e.of(1, 1) == expected(r, 1, e.longest()));
}

TEST_CASE("a deadline ends what waits and what runs, with the reason") {
  scheduler_settings settings = roomy();
  settings.max_sequences = 1;
  engine e(settings);
  generation_request runs = endless(1, 20, 500, 1);
  generation_request waits = endless(2, 20, 500, 2);
  runs.deadline = 55'000'000;
  waits.deadline = 25'000'000;
  REQUIRE(e.core.add(runs, 0));
  REQUIRE(e.core.add(waits, 0));
  e.run_until_idle();
  for (const request_id id : {1, 2}) {
    CHECK(e.of(id).finish == finish_reason::error);
    CHECK(e.last.at({id, 0}).failure->code == errc::timed_out);
  }
  CHECK(e.of(1).tokens.size() == 6);
  CHECK(e.of(2).tokens.empty());
  CHECK(e.last.at({2, 0}).failure->detail.find("waited in the queue") != std::string::npos);
}

TEST_CASE("a lost device costs a pause: every text goes on where it was") {
  engine e(roomy());
  std::vector<generation_request> all;
  for (request_id id = 1; id <= 6; ++id) {
    all.push_back(endless(id, 20 * static_cast<int>(id), 30, static_cast<int>(id)));
    REQUIRE(e.core.add(all.back(), 0));
  }
  for (int i = 0; i < 9; ++i) e.step();
  REQUIRE(e.begin());
  e.lose_device();
  CHECK(e.core.counts().blocks_free == 2000);
  CHECK(e.core.counts().blocks_cached == 0);
  e.finish();  // the lost step's result arrives after all, and is nobody's
  e.run_until_idle();
  for (const auto& r : all) check_text(e, r);
}

TEST_CASE("planning a step of 64 running sequences takes microseconds", "[.bench]") {
  scheduler_settings settings = roomy();
  settings.kv_blocks = 4000;
  engine e(settings);
  for (request_id id = 1; id <= 64; ++id) {
    REQUIRE(e.core.add(endless(id, 100, 400, static_cast<int>(id)), 0));
  }
  for (int i = 0; i < 60; ++i) e.step();
  std::vector<double> plan_us;
  std::vector<double> complete_us;
  using steady = std::chrono::steady_clock;
  using us = std::chrono::duration<double, std::micro>;
  for (int i = 0; i < 300; ++i) {
    const auto a = steady::now();
    const step_plan plan = e.core.schedule(e.now);
    const auto b = steady::now();
    REQUIRE(plan.chunks.size() == 64);
    const step_result done = e.device.run(plan);
    const auto c = steady::now();
    (void)e.core.complete(done, e.now);
    const auto d = steady::now();
    plan_us.push_back(us(b - a).count());
    complete_us.push_back(us(d - c).count());
  }
  const auto median = [](std::vector<double>& v) {
    std::nth_element(v.begin(), v.begin() + 150, v.end());
    return v[150];
  };
  std::cout << "schedule " << median(plan_us) << " us, complete " << median(complete_us)
            << " us (medians of 300, 64 sequences)\n";
  CHECK(median(plan_us) < 200);
}

TEST_CASE(
    "a request that costs devices runs alone until it has a token, and is given up after four") {
  engine e(roomy());
  const auto poison = endless(1, 100, 20, 1);
  const auto fine = endless(2, 60, 30, 2);
  const auto late = endless(3, 40, 30, 3);
  REQUIRE(e.core.add(poison, 0));
  REQUIRE(e.core.add(fine, 0));
  std::vector<std::size_t> others;  // that were in a step with it, at each death
  std::vector<request_id> given_up;
  for (int guard = 0; given_up.empty(); ++guard) {
    REQUIRE(guard < 1000);
    if (others.size() == 2 && !e.core.knows(3)) REQUIRE(e.core.add(late, 0));
    REQUIRE(e.begin());
    const bool is_there = std::any_of(
        e.plan.chunks.begin(), e.plan.chunks.end(),
        [&](const step_chunk& chunk) { return chunk.tokens.front() == poison.prompt.front(); });
    if (!is_there) {
      e.finish();
      continue;
    }
    others.push_back(e.plan.chunks.size() - 1);
    given_up = e.lose_device();
  }
  CHECK(given_up == std::vector<request_id>{1});
  CHECK(others == std::vector<std::size_t>{1, 1, 0, 0});
  e.core.cancel(1);
  e.run_until_idle();
  check_text(e, fine);
  check_text(e, late);
}

TEST_CASE("requests that make tokens between deaths are never given up") {
  engine e(roomy());
  const auto r = endless(1, 50, 40, 1);
  REQUIRE(e.core.add(r, 0));
  for (int death = 0; death < 3 * deaths_max; ++death) {
    REQUIRE(e.step());
    REQUIRE(e.begin());
    CHECK(e.lose_device().empty());
  }
  e.run_until_idle();
  check_text(e, r);
}
