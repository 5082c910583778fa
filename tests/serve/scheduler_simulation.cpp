#include "tests/serve/fake_device.hpp"

#include <random>
#include <set>

using namespace tandem::serve;
using namespace tandem::serve::testing;

namespace {

struct day {
  explicit day(std::uint32_t seed) : random(seed) {}

  int up_to(int n) { return static_cast<int>(random() % static_cast<std::uint32_t>(n + 1)); }
  bool chance(int percent) { return up_to(99) < percent; }

  scheduler_settings settings() {
    scheduler_settings s;
    s.max_sequences = 1 + up_to(11);
    s.max_batch_tokens = 8 + up_to(120);
    s.prefill_chunk_tokens = 1 + up_to(60);
    s.max_logit_rows = 1 + up_to(20);
    s.max_queued = 1000;
    s.context_length = 60 + up_to(140);
    s.kv_blocks = 6 + up_to(30);
    s.prefix_cache = chance(50);
    return s;
  }

  generation_request request(request_id id, std::int64_t longest) {
    const int most = static_cast<int>(longest) - 1;
    std::vector<token_id> prompt = words(up_to(most - 1), up_to(2));  // few beginnings, many ends
    if (static_cast<int>(prompt.size()) > most - 8) prompt.resize(prompt.size() / 2);
    for (const token_id t : words(1 + up_to(6), static_cast<int>(id))) prompt.push_back(t);
    generation_request r = ask(id, std::move(prompt), 1 + up_to(50));
    if (chance(5)) r.stops.max_tokens = 0;
    r.choices = chance(20) ? 1 + up_to(4) : 1;
    r.priority = up_to(2);
    r.use_prefix_cache = !chance(10);
    if (chance(20)) r.cache_salt = "tenant";
    r.stops.eos_ids = {end_of_text};
    if (chance(20)) r.stops.stop_token_ids = {7, 9};
    if (chance(20)) r.stops.min_tokens = up_to(10);
    r.stops.ignore_eos = chance(20);
    if (chance(15)) r.sampling.prompt_logprobs = 0;
    return r;
  }

  std::mt19937 random;
};

}  // namespace

TEST_CASE("whatever is asked for, taken back or lost, each text is the one of a solo run") {
  std::uint64_t preemptions = 0;
  std::uint64_t cached = 0;
  int planned_ahead = 0;
  for (std::uint32_t seed = 1; seed <= 200; ++seed) {
    CAPTURE(seed);
    day today(seed);
    const scheduler_settings settings = today.settings();
    engine e(settings);
    std::map<request_id, generation_request> asked;
    std::set<std::pair<request_id, int>> taken_back;
    request_id next = 1;
    const int requests = 10 + today.up_to(30);
    const bool accidents = today.chance(40);
    const auto disturb = [&] {
      if (!accidents || asked.empty()) return;
      const request_id id = 1 + static_cast<request_id>(today.up_to(static_cast<int>(next) - 2));
      if (today.chance(3)) {
        e.core.cancel(id);
        for (int c = 0; c < asked.at(id).choices; ++c) taken_back.emplace(id, c);
      }
      if (today.chance(3)) {
        const int choice = today.up_to(asked.at(id).choices - 1);
        e.core.finish_choice(id, choice);
        taken_back.emplace(id, choice);
      }
    };
    for (int round = 0;; ++round) {
      REQUIRE(round < 20'000);
      while (static_cast<int>(next) <= requests && today.chance(30)) {
        generation_request r = today.request(next, e.longest());
        if (accidents && today.chance(10)) r.deadline = e.now + 10'000'000 * today.up_to(60) + 1;
        REQUIRE(e.core.add(r, e.now));
        asked[next++] = r;
      }
      disturb();
      if (!e.begin()) {
        if (static_cast<int>(next) > requests) break;
        continue;
      }
      if (today.chance(70) && e.plan_ahead()) ++planned_ahead;
      disturb();
      if (accidents && today.chance(10)) e.take_back();
      if (accidents && today.chance(1)) {
        e.lose_device();
        continue;
      }
      e.finish();
      const scheduler_counts counts = e.core.counts();
      REQUIRE(counts.blocks_free <= counts.blocks_total);
      REQUIRE(counts.running <= settings.max_sequences);
    }
    REQUIRE(e.core.idle());
    const scheduler_counts counts = e.core.counts();
    REQUIRE(counts.blocks_free == settings.kv_blocks);
    REQUIRE(counts.queued == 0);
    REQUIRE(counts.running == 0);
    preemptions += counts.preemptions;
    cached += counts.prompt_tokens_cached;
    for (const auto& [id, request] : asked) {
      for (int choice = 0; choice < request.choices; ++choice) {
        CAPTURE(id, choice);
        const outcome& got = e.of(id, choice);
        const outcome want = expected(request, choice, e.longest());
        const bool late = got.finish == finish_reason::error;
        REQUIRE((!late || request.deadline > 0));
        if (late || taken_back.contains({id, choice})) {
          REQUIRE(got.tokens.size() <= want.tokens.size());
          REQUIRE(std::equal(got.tokens.begin(), got.tokens.end(), want.tokens.begin()));
        } else {
          REQUIRE(got == want);
          REQUIRE(e.ends.at({id, choice}) == 1);
          const int end = want.stop_token.has_value() ? 1 : 0;
          REQUIRE(e.last.at({id, choice}).completion_tokens ==
                  static_cast<int>(want.tokens.size()) + end);
        }
      }
      if (request.sampling.prompt_logprobs < 0) continue;
      const auto scores = e.scores.find({id, 0});
      if (scores != e.scores.end()) REQUIRE(scores->second == expected_scores(request.prompt));
      if (!taken_back.contains({id, 0}) && request.deadline == 0 && request.prompt.size() > 1) {
        REQUIRE(scores != e.scores.end());
      }
    }
  }
  // The days were not all quiet.
  CHECK(preemptions > 100);
  CHECK(cached > 5'000);
  CHECK(planned_ahead > 5'000);
}
