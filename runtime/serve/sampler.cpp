#include "runtime/serve/sampler.hpp"

#include "kernels/draw_math.hpp"
#include "kernels/ensure.hpp"
#include "runtime/serve/logit_passes.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

namespace tandem::serve {
namespace {

namespace drawing = kernels::drawing;

constexpr float lowest = -std::numeric_limits<float>::infinity();
// What OpenAI reports for "very unlikely"; JSON has no infinity.
constexpr float logprob_floor = -9999.0F;
// Colder than this is greedy, as at vLLM: dividing by it would overflow.
constexpr float coldest = 1e-5F;

struct candidate {
  std::uint32_t id = 0;
  std::uint64_t weight = 0;  // in units
};

// Top_k, min_p, top_p and the draw over a handful: `ids` best first.
std::uint32_t draw_among(std::span<const std::uint32_t> ids, std::span<const float> logits_V,
                         const sampling_parameters& p, double u) {
  const float top = logits_V[ids[0]];
  std::vector<candidate> kept;
  kept.reserve(ids.size());
  std::uint64_t total = 0;
  for (const std::uint32_t id : ids) {
    const float weight = exp_nonpositive((logits_V[id] - top) * (1.0F / p.temperature));
    if (weight < p.min_p || weight == 0.0F) break;
    kept.push_back({id, drawing::units(weight)});
    total += kept.back().weight;
  }
  if (p.top_p < 1.0F) {
    const auto wanted = drawing::nucleus_wanted(total, drawing::share_of_one(double{p.top_p}));
    total = 0;
    std::size_t count = 0;
    while (count < kept.size() && total < wanted) total += kept[count++].weight;
    kept.resize(count);
  }
  std::sort(kept.begin(), kept.end(),
            [](const candidate& a, const candidate& b) { return a.id < b.id; });
  const std::uint64_t target = drawing::part_of(total, drawing::share_of_one(u));
  std::uint64_t sum = 0;
  for (const candidate& c : kept) {
    sum += c.weight;
    if (sum > target) return c.id;
  }
  return kept.back().id;
}

}  // namespace

struct sampler::state {
  sampling_parameters parameters;
  std::uint32_t choice = 0;

  // What penalties count, by id.
  struct seen {
    token_id id = 0;
    int generated = 0;
  };
  bool penalizes = false;
  std::vector<seen> tokens;
  std::unordered_map<token_id, std::size_t> index;
  // What was written over, to report the model's own distribution afterwards.
  std::vector<std::pair<std::size_t, float>> overwritten;

  seen& entry(token_id id) {
    const auto [at, fresh] = index.try_emplace(id, tokens.size());
    if (fresh) tokens.push_back({id, 0});
    return tokens[at->second];
  }

  void set(std::span<float> logits_V, token_id id, float value) {
    const auto i = static_cast<std::size_t>(id);
    overwritten.emplace_back(i, logits_V[i]);
    logits_V[i] = value;
  }

  void shape(std::span<float> logits_V, std::span<const token_id> banned) {
    const auto known = [&](token_id id) {
      return id >= 0 && static_cast<std::size_t>(id) < logits_V.size();
    };
    const auto at = [&](token_id id) { return logits_V[static_cast<std::size_t>(id)]; };
    overwritten.clear();
    for (const auto& [id, bias] : parameters.logit_bias) {
      if (known(id)) set(logits_V, id, at(id) + bias);
    }
    for (const seen& t : tokens) {
      if (!known(t.id)) continue;
      float x = at(t.id);
      x = x > 0.0F ? x / parameters.repetition_penalty : x * parameters.repetition_penalty;
      if (t.generated > 0) {
        x -= parameters.frequency_penalty * static_cast<float>(t.generated);
        x -= parameters.presence_penalty;
      }
      set(logits_V, t.id, x);
    }
    for (const token_id id : banned) {
      if (known(id)) set(logits_V, id, lowest);
    }
  }

  void restore(std::span<float> logits_V) const {
    for (auto change = overwritten.rbegin(); change != overwritten.rend(); ++change) {
      logits_V[change->first] = change->second;
    }
  }

  bool greedy() const { return parameters.temperature < coldest || parameters.top_k == 1; }

  std::uint32_t choose(std::span<float> logits_V, int position, std::span<const token_id> banned,
                       std::vector<std::uint32_t>& scratch) const {
    const sampling_parameters& p = parameters;
    const peak best = largest(logits_V);
    if (best.value == lowest) {  // nothing is likely: any answer is as good, so the smallest id
      std::uint32_t id = 0;
      const auto is_banned = [&] {
        return std::find(banned.begin(), banned.end(), static_cast<token_id>(id)) != banned.end();
      };
      while (id + 1 < logits_V.size() && is_banned()) ++id;
      return id;
    }
    if (greedy() || best.value > std::numeric_limits<float>::max()) return best.id;
    const double u = uniform(p.seed, choice, static_cast<std::uint64_t>(position));
    const auto top_k = static_cast<std::size_t>(std::max(p.top_k, 0));
    if (top_k > 0 && top_k < logits_V.size()) {
      return draw_among(top_ids(logits_V, top_k), logits_V, p, u);
    }
    if (scratch.size() < logits_V.size()) scratch.resize(logits_V.size());
    const auto weights_V = std::span(scratch).first(logits_V.size());
    const float inverse = 1.0F / p.temperature;
    weigh(logits_V, best.value, inverse, p.min_p, weights_V);
    if (p.top_p < 1.0F) {
      keep_nucleus(logits_V, best.value, inverse, static_cast<double>(p.top_p), weights_V);
    }
    return draw(weights_V, u);
  }
};

sampler::sampler(const sampling_parameters& parameters, int choice,
                 std::span<const token_id> prompt, std::span<const token_id> generated)
    : state_(std::make_unique<state>()) {
  state& s = *state_;
  s.parameters = parameters;
  s.choice = static_cast<std::uint32_t>(choice);
  const bool repetition = parameters.repetition_penalty != 1.0F;
  s.penalizes =
      repetition || parameters.presence_penalty != 0.0F || parameters.frequency_penalty != 0.0F;
  if (!s.penalizes) return;
  if (repetition) {
    for (const token_id id : prompt) s.entry(id);
  }
  for (const token_id id : generated) ++s.entry(id).generated;
}
sampler::~sampler() = default;
sampler::sampler(sampler&&) noexcept = default;
sampler& sampler::operator=(sampler&&) noexcept = default;

std::optional<kernels::draw_rule> sampler::rule(int position) const {
  const sampling_parameters& p = state_->parameters;
  if (state_->penalizes || !p.logit_bias.empty() || p.logprobs >= 0 || p.top_k > 1) return {};
  kernels::draw_rule rule;
  if (state_->greedy()) return rule;
  rule.temperature = p.temperature;
  rule.min_p = p.min_p;
  rule.top_p = p.top_p;
  rule.u = uniform(p.seed, state_->choice, static_cast<std::uint64_t>(position));
  return rule;
}

token_logprob sampler::sample(std::span<float> logits, int position,
                              std::span<const token_id> banned,
                              std::vector<std::uint32_t>& scratch) {
  ensure(!logits.empty(), "sampling from no logits");
  state& s = *state_;
  s.shape(logits, banned);
  const auto id = static_cast<token_id>(s.choose(logits, position, banned, scratch));
  if (s.penalizes) ++s.entry(id).generated;
  token_logprob drawn;
  drawn.id = id;
  if (s.parameters.logprobs < 0) return drawn;
  s.restore(logits);
  return score(logits, id, s.parameters.logprobs);
}

token_logprob score(std::span<const float> logits, token_id id, int top) {
  token_logprob scored;
  scored.id = id;
  const peak best = largest(logits);
  // With infinities no softmax exists: its limit, all weight on the infinite ones.
  const bool infinite = best.value > std::numeric_limits<float>::max();
  const double log_sum =
      infinite ? std::log(static_cast<double>(std::count(logits.begin(), logits.end(), best.value)))
               : std::log(sum_of_exp(logits, best.value));
  const auto logprob_of = [&](std::size_t i) {
    const float x = logits[i];
    if (best.value == lowest || !(x > lowest) || (infinite && x < best.value)) return logprob_floor;
    const double above = infinite ? 0.0 : static_cast<double>(x) - static_cast<double>(best.value);
    return std::max(static_cast<float>(above - log_sum), logprob_floor);
  };
  const auto known = id >= 0 && static_cast<std::size_t>(id) < logits.size();
  scored.logprob = known ? logprob_of(static_cast<std::size_t>(id)) : logprob_floor;
  scored.rank = static_cast<int>(logits.size());
  if (known) {
    const auto mine = static_cast<std::size_t>(id);
    const float x = logits[mine] > lowest ? logits[mine] : lowest;
    int larger = 0;
    for (const float other : logits) larger += other > x ? 1 : 0;
    for (std::size_t i = 0; i < mine; ++i) larger += logits[i] == x ? 1 : 0;
    scored.rank = larger + 1;
  }
  if (top > 0) {
    for (const std::uint32_t other : top_ids(logits, static_cast<std::size_t>(top))) {
      scored.top.emplace_back(static_cast<token_id>(other), logprob_of(other));
    }
  }
  return scored;
}

}  // namespace tandem::serve
