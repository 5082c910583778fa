#include "tests/serve/fake_device.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>

namespace tandem::serve::testing {
namespace {

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0x9e3779b97f4a7c15U + b + 0x632be59bd9b4e019U;
  x ^= x >> 29U;
  x *= 0xbf58476d1ce4e5b9U;
  return x ^ (x >> 32U);
}

std::uint64_t position_state(std::uint64_t before, token_id token, int position) {
  return mix(mix(before, static_cast<std::uint64_t>(token)), static_cast<std::uint64_t>(position));
}

token_id draw(std::uint64_t state, const sampling_parameters& sampling, int choice,
              const std::vector<token_id>& banned) {
  state = mix(mix(state, sampling.seed), static_cast<std::uint64_t>(choice));
  while (true) {
    const auto id = static_cast<token_id>(state % vocabulary);
    if (std::find(banned.begin(), banned.end(), id) == banned.end()) return id;
    state = mix(state, 1);
  }
}

token_logprob score_of(std::uint64_t state, token_id id) {
  return {id, -static_cast<float>(mix(state, static_cast<std::uint64_t>(id)) % 1000) / 100, 1, {}};
}

}  // namespace

std::uint64_t& fake_device::kv(const slot& s, int position) {
  const auto index = static_cast<std::size_t>(position / 16);
  REQUIRE(index < s.blocks.size());
  return kv_.at(static_cast<std::size_t>(s.blocks[index] * 16 + position % 16));
}

int fake_device::users(std::int32_t block) const {
  int count = 0;
  for (const auto& [index, s] : slots_) {
    count += static_cast<int>(std::count(s.blocks.begin(), s.blocks.end(), block));
  }
  return count;
}

void fake_device::lose() {
  slots_.clear();
  std::fill(kv_.begin(), kv_.end(), 0xdeadU);
}

step_result fake_device::run(const step_plan& plan) {
  step_result result;
  result.number = plan.number;
  for (const slot_index index : plan.releases) REQUIRE(slots_.erase(index) == 1);
  for (const slot_start& start : plan.starts) {
    slot s{start, {}, start.prompt, 0};
    s.history.insert(s.history.end(), start.generated.begin(), start.generated.end());
    REQUIRE(slots_.emplace(start.slot, s).second);
  }
  for (const kv_copy& copy : plan.copies)
    for (const auto& [there, here] : copy.blocks) {
      const auto from = copy.from->block(there);
      std::memcpy(&kv_.at(static_cast<std::size_t>(here) * 16), from.data(), from.size());
    }
  rows_computed += plan.rows();
  // All tables first: blocks of one sequence must not be written by another in the same step.
  for (const step_chunk& chunk : plan.chunks) {
    REQUIRE(slots_.contains(chunk.slot));
    slot& s = slots_.at(chunk.slot);
    s.blocks.insert(s.blocks.end(), chunk.new_blocks.begin(), chunk.new_blocks.end());
    if (s.written == 0) s.written = chunk.first_position;
    REQUIRE(chunk.first_position == s.written);
  }
  for (const step_chunk& chunk : plan.chunks) {
    slot& s = slots_.at(chunk.slot);
    const int count = static_cast<int>(chunk.tokens.size());
    REQUIRE(count > 0);
    REQUIRE(chunk.first_position + count <= static_cast<int>(s.history.size()));
    prompt_scores scores{chunk.slot, chunk.first_position + 1, {}};
    std::uint64_t state = 0;
    for (int i = 0; i < count; ++i) {
      const int position = chunk.first_position + i;
      const token_id token = chunk.tokens[static_cast<std::size_t>(i)];
      REQUIRE(token == s.history[static_cast<std::size_t>(position)]);
      REQUIRE(users(s.blocks.at(static_cast<std::size_t>(position / 16))) == 1);
      const std::uint64_t before = position == 0 ? 0 : kv(s, position - 1);
      state = kv(s, position) = position_state(before, token, position);
      const auto next = static_cast<std::size_t>(position) + 1;
      if (next < s.start.prompt.size()) {
        scores.scores.push_back(score_of(state, s.start.prompt[next]));
      }
    }
    s.written += count;
    if (chunk.prompt_logprobs) result.prompt.push_back(scores);
    if (!chunk.sample) continue;
    REQUIRE(s.written == static_cast<int>(s.history.size()));
    std::uint64_t all = 0;
    for (int p = 0; p < s.written; ++p) all = mix(all, kv(s, p));
    const token_id id = draw(all, s.start.sampling, s.start.choice, chunk.banned);
    s.history.push_back(id);
    result.sampled.push_back({chunk.slot, {id, 0.0F, 0, {}}});
  }
  return result;
}

outcome expected(const generation_request& request, int choice, std::int64_t longest) {
  const stop_conditions& stops = request.stops;
  outcome made;
  if (stops.max_tokens == 0) {
    made.finish = finish_reason::length;
    return made;
  }
  std::vector<token_id> tokens = request.prompt;
  std::uint64_t state = 0;
  std::uint64_t all = 0;
  std::size_t written = 0;
  while (true) {
    for (; written < tokens.size(); ++written) {
      state = position_state(state, tokens[written], static_cast<int>(written));
      all = mix(all, state);
    }
    const bool short_yet = static_cast<int>(made.tokens.size()) < stops.min_tokens;
    std::vector<token_id> ends = stops.stop_token_ids;
    if (!stops.ignore_eos) ends.insert(ends.end(), stops.eos_ids.begin(), stops.eos_ids.end());
    const token_id id =
        draw(all, request.sampling, choice, short_yet ? ends : std::vector<token_id>{});
    if (std::find(ends.begin(), ends.end(), id) != ends.end()) {
      made.finish = finish_reason::stop;
      made.stop_token = id;
      return made;
    }
    made.tokens.push_back(id);
    tokens.push_back(id);
    if (static_cast<int>(made.tokens.size()) == stops.max_tokens ||
        static_cast<std::int64_t>(tokens.size()) == longest) {
      made.finish = finish_reason::length;
      return made;
    }
  }
}

std::vector<token_logprob> expected_scores(const std::vector<token_id>& prompt) {
  std::vector<token_logprob> scores;
  std::uint64_t state = 0;
  for (std::size_t i = 0; i + 1 < prompt.size(); ++i) {
    state = position_state(state, prompt[i], static_cast<int>(i));
    scores.push_back(score_of(state, prompt[i + 1]));
  }
  return scores;
}

std::int64_t engine::longest() const {
  return std::min(settings_.context_length, settings_.kv_blocks * 16 + 1);
}

int engine::ended() const {
  int count = 0;
  for (const auto& [key, events] : ends) count += events;
  return count;
}

void engine::check(const step_plan& p) const {
  REQUIRE(p.rows() <= settings_.max_batch_tokens);
  int logits = 0;
  for (const step_chunk& chunk : p.chunks) {
    logits += chunk.prompt_logprobs ? static_cast<int>(chunk.tokens.size()) : chunk.sample ? 1 : 0;
  }
  REQUIRE(logits <= settings_.max_logit_rows);
}

bool engine::begin() {
  note(core.expire(now));
  if (runs_) return true;
  plan = core.schedule(now);
  if (plan.chunks.empty()) return false;
  check(plan);
  result_ = device.run(plan);
  runs_ = true;
  return true;
}

bool engine::plan_ahead() {
  REQUIRE(runs_);
  if (!ahead) ahead = core.schedule_ahead();
  if (ahead) check(*ahead);
  return ahead.has_value();
}

void engine::take_back() {
  if (!ahead) return;
  core.take_back(ahead->number);
  ahead.reset();
}

void engine::finish() {
  now += 10'000'000;
  ++steps;
  const auto landed = std::move(result_);
  runs_ = ahead.has_value();
  if (ahead) {
    REQUIRE(ahead->follows == landed.number);
    REQUIRE(fill_drawn(*ahead, landed.sampled));
    plan = *std::exchange(ahead, std::nullopt);
    result_ = device.run(plan);
  }
  note(core.complete(landed, now));
}

bool engine::step() {
  if (!begin()) return false;
  finish();
  return true;
}

void engine::run_until_idle() {
  for (int guard = 0; step(); ++guard) REQUIRE(guard < 100'000);
  REQUIRE(core.idle());
}

std::vector<request_id> engine::lose_device() {
  device.lose();
  runs_ = false;
  ahead.reset();
  return core.device_lost();
}

void engine::note(const std::vector<sequence_event>& events) {
  for (const sequence_event& e : events) {
    const auto key = std::pair(e.id, e.choice);
    REQUIRE(ends[key] == 0);
    outcome& o = outcomes[key];
    for (const auto& token : e.tokens) o.tokens.push_back(token.id);
    if (!e.tokens.empty()) first_token_step.emplace(e.id, steps);
    if (!e.prompt_logprobs.empty()) {
      REQUIRE_FALSE(scores.contains(key));
      scores[key] = e.prompt_logprobs;
    }
    o.finish = e.finish;
    o.stop_token = e.stop_token;
    if (e.finish != finish_reason::none) ++ends[key];
    last[key] = e;
  }
}

generation_request ask(request_id id, std::vector<token_id> prompt, int max_tokens) {
  generation_request r;
  r.id = id;
  r.prompt = std::move(prompt);
  r.stops.max_tokens = max_tokens;
  r.sampling.seed = id;
  return r;
}

std::vector<token_id> words(int count, int kind) {
  std::vector<token_id> tokens;
  for (int i = 0; i < count; ++i) {
    tokens.push_back(static_cast<token_id>(
        1 +
        mix(static_cast<std::uint64_t>(kind), static_cast<std::uint64_t>(i)) % (vocabulary - 1)));
  }
  return tokens;
}

generation_request endless(request_id id, int prompt, int tokens, int kind) {
  return ask(id, words(prompt, kind), tokens);
}

scheduler_settings roomy() {
  scheduler_settings s;
  s.context_length = 8192;
  s.kv_blocks = 2000;
  return s;
}

void check_text(engine& e, const generation_request& r) {
  for (int choice = 0; choice < r.choices; ++choice) {
    CAPTURE(r.id, choice);
    CHECK(e.of(r.id, choice) == expected(r, choice, e.longest()));
    CHECK((e.ends[{r.id, choice}]) == 1);
  }
}

}  // namespace tandem::serve::testing
