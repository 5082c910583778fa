#include "runtime/serve/step_runner.hpp"

#include "runtime/serve/device.hpp"
#include "runtime/serve/sampler.hpp"
#include "runtime/serve/step_layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

namespace tandem::serve {
namespace {

using steady = std::chrono::steady_clock;

struct sequence {
  variant_id runs_on;
  sampler draw;
  int prompt_logprobs;               // alternatives to report per prompt token
  std::vector<token_id> prompt;      // kept only when it is scored
  std::vector<std::int32_t> blocks;  // reserved for the longest sequence at creation
};

// One scratch vector a thread at most; which thread takes which does not matter.
class scratch_pool {
 public:
  std::vector<std::uint32_t> take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return {};
    auto scratch = std::move(free_.back());
    free_.pop_back();
    return scratch;
  }
  void give(std::vector<std::uint32_t> scratch) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(scratch));
  }

 private:
  std::mutex mutex_;
  std::vector<std::vector<std::uint32_t>> free_;
};

// Calls f for runs of rows that come to the host together: what lies between two of them costs less
// than another wait for the device, and rows of a run are sampled side by side.
template <class F>
void for_runs(std::span<const std::size_t> rows, const F& f) {
  constexpr std::size_t nearby = 8;
  for (std::size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    for (end = begin + 1; end < rows.size() && rows[end] - rows[end - 1] <= nearby;) ++end;
    f(rows.subspan(begin, end - begin));
  }
}

// Gemma 2's, of one row of logits; 0: none.
void soft_cap(std::span<float> logits_V, float cap) {
  if (cap <= 0.0F) return;
  for (float& logit : logits_V) logit = cap * std::tanh(logit / cap);
}

std::int64_t blocks_for(std::int64_t positions) {
  return (positions + kernels::kv_block_positions - 1) / kernels::kv_block_positions;
}

}  // namespace

struct step_runner::state {
  kernels::backend* device = nullptr;
  runner_limits limits;
  std::unique_ptr<model::forward_pass> pass;
  std::map<variant_id, variant> variants;  // but for the base
  std::vector<std::optional<sequence>> slots;
  scratch_pool scratch;

  // The step in flight.
  enum class phase { idle, copy, forward, sample } now = phase::idle;
  step_plan plan;
  steady::duration worked{};
  step_layout rows;
  std::size_t copied = 0;                 // of the plan's copies
  std::size_t running = 0;                // of its passes
  std::vector<variant> kept;              // what this step runs on stays until it is done
  std::vector<token_logprob> outcomes;    // one per use
  std::vector<kernels::draw_rule> rules;  // likewise
  std::vector<token_id> drawn;            // likewise; -1: not by the device
  std::vector<std::size_t> left;          // the uses that are the host's

  explicit state(const runner_limits& l)
      : limits(l),
        slots(static_cast<std::size_t>(l.max_sequences)),
        rows(static_cast<std::size_t>(l.max_batch_tokens)) {}

  result<void> check(const step_plan& p) const;
  void lay_out();
  void begin_passes();
  void copy();
  void sample();
  void draw_on_device();
  void sample_row(std::size_t index, std::span<float> logits_V);
  void end_step();

  sequence& slot(slot_index index) { return *slots[static_cast<std::size_t>(index)]; }
};

result<std::unique_ptr<step_runner>> step_runner::create(
    kernels::backend& device, memory::ledger& book, std::shared_ptr<const model::weights> model,
    const runner_limits& limits, kernels::collective* ranks) {
  ensure(limits.max_sequences > 0 && limits.max_batch_tokens > 0, "a runner without room");
  auto s = std::make_unique<state>(limits);
  s->device = &device;
  auto pass = model::forward_pass::create(device, book, std::move(model),
                                          {.rows = limits.max_batch_tokens,
                                           .logit_rows = limits.max_logit_rows,
                                           .context_positions = limits.context_length,
                                           .kv_blocks = limits.kv_blocks,
                                           .kv = limits.kv},
                                          ranks);
  if (!pass) return pass.error();
  s->pass = *std::move(pass);
  return std::unique_ptr<step_runner>(new step_runner(std::move(s)));
}

step_runner::step_runner(std::unique_ptr<state> s) : state_(std::move(s)) {}
step_runner::~step_runner() = default;

result<void> step_runner::state::check(const step_plan& p) const {
  auto refuse = [&](std::string why) {
    return error{errc::internal, fmt::format("step {}: {}", p.number, why), ""};
  };
  const auto slot_count = static_cast<slot_index>(slots.size());
  std::vector<char> live(slots.size());
  std::vector<std::size_t> held_blocks(slots.size());
  std::vector<variant_id> runs_on(slots.size());
  for (std::size_t i = 0; i < slots.size(); ++i) {
    live[i] = slots[i].has_value();
    if (!slots[i]) continue;
    held_blocks[i] = slots[i]->blocks.size();
    runs_on[i] = slots[i]->runs_on;
  }
  auto known = [&](slot_index slot) { return slot >= 0 && slot < slot_count; };
  for (auto slot : p.releases) {
    if (!known(slot) || !live[static_cast<std::size_t>(slot)])
      return refuse(fmt::format("releases slot {}, which nobody holds", slot));
    live[static_cast<std::size_t>(slot)] = 0;
  }
  for (const auto& start : p.starts) {
    if (!known(start.slot) || live[static_cast<std::size_t>(start.slot)])
      return refuse(fmt::format("starts slot {}, which is taken or not there", start.slot));
    live[static_cast<std::size_t>(start.slot)] = 1;
    held_blocks[static_cast<std::size_t>(start.slot)] = 0;
    runs_on[static_cast<std::size_t>(start.slot)] = start.variant;
  }
  if (p.rows() > limits.max_batch_tokens)
    return refuse(fmt::format("{} rows, the limit is {}", p.rows(), limits.max_batch_tokens));
  for (const auto& copy : p.copies) {
    if (!copy.from || !copy.from->is_here() || copy.from->block_bytes != pass->kv_block_bytes())
      return refuse("copies KV blocks of another shape");
    for (const auto& [there, here] : copy.blocks)
      if (there < 0 || there >= copy.from->block_count() || here < 0 || here >= limits.kv_blocks)
        return refuse(fmt::format("copies block {} of {} into block {} of {}", there,
                                  copy.from->block_count(), here, limits.kv_blocks));
  }
  std::int64_t wanted = 0;
  for (const auto& chunk : p.chunks) {
    if (!known(chunk.slot) || !live[static_cast<std::size_t>(chunk.slot)])
      return refuse(fmt::format("runs slot {}, which nobody holds", chunk.slot));
    if (const auto id = runs_on[static_cast<std::size_t>(chunk.slot)];
        id != 0 && !variants.contains(id))
      return refuse(fmt::format("slot {} runs on variant {}, which is not here", chunk.slot, id));
    if (chunk.tokens.empty() || chunk.first_position < 0)
      return refuse(fmt::format("slot {}: an empty chunk", chunk.slot));
    const auto end = chunk.first_position + static_cast<std::int64_t>(chunk.tokens.size());
    const auto blocks = static_cast<std::int64_t>(
        chunk.new_blocks.size() + held_blocks[static_cast<std::size_t>(chunk.slot)]);
    if (end > limits.context_length || blocks < blocks_for(end))
      return refuse(fmt::format("slot {}: {} positions over {} blocks, context {}", chunk.slot, end,
                                blocks, limits.context_length));
    for (auto block : chunk.new_blocks)
      if (block < 0 || block >= limits.kv_blocks)
        return refuse(fmt::format("block {} of {}", block, limits.kv_blocks));
    for (auto id : chunk.tokens)
      if (id < 0 || id >= pass->model().config.vocabulary_size)
        return refuse(fmt::format("token {} of a vocabulary of {}", id,
                                  pass->model().config.vocabulary_size));
    wanted += chunk.prompt_logprobs ? static_cast<std::int64_t>(chunk.tokens.size())
                                    : (chunk.sample ? 1 : 0);
  }
  if (wanted > limits.max_logit_rows)
    return refuse(fmt::format("logits of {} rows, the limit is {}", wanted, limits.max_logit_rows));
  return {};
}

void step_runner::state::lay_out() {
  for (const auto& chunk : plan.chunks) {
    auto& blocks = slot(chunk.slot).blocks;
    blocks.insert(blocks.end(), chunk.new_blocks.begin(), chunk.new_blocks.end());
  }
  rows.lay_out(plan.chunks, [this](const step_chunk& chunk) {
    const auto& held = slot(chunk.slot);
    const auto found = variants.find(held.runs_on);
    if (found != variants.end()) kept.push_back(found->second);
    return slot_view{held.runs_on, found == variants.end() ? nullptr : &found->second, held.prompt,
                     held.blocks.data()};
  });
  outcomes.assign(rows.uses().size(), {});
}

void step_runner::state::end_step() {
  now = phase::idle;
  plan.copies.clear();  // another process's memory is held no longer than it is read
  kept.clear();
}

void step_runner::state::begin_passes() {
  running = 0;
  const bool empty = rows.pass_count() == 0;
  if (!empty) pass->begin(rows.pass(0));
  now = empty ? phase::sample : phase::forward;
}

// One sequence's blocks: 2 bytes moved for each that is there, a millisecond or two for 4,000
// tokens of a small model.
void step_runner::state::copy() {
  const auto& copy = plan.copies[copied++];
  const auto to = pass->kv()->bytes();
  const auto size = pass->kv_block_bytes();
  const auto copy_block = [&](std::int64_t i) {
    const auto [there, here] = copy.blocks[static_cast<std::size_t>(i)];
    const auto from = copy.from->block(there);
    auto* const into = to.data() + static_cast<std::size_t>(here) * size;
    if (device->host_memory())
      std::copy(from.begin(), from.end(), into);
    else
      device->copy(from, into);
  };
  if (device->host_memory()) {
    device->for_each(std::ssize(copy.blocks), copy_block);
    return;
  }
  for (std::int64_t i = 0; i < std::ssize(copy.blocks); ++i) copy_block(i);
  device->finish();  // the other device's hold on its blocks ends with the step
}

void step_runner::state::draw_on_device() {
  const auto& uses = rows.uses();
  const bool capped = pass->model().config.logit_softcap > 0.0F;
  rules.assign(uses.size(), {});
  drawn.assign(uses.size(), -1);
  left.clear();
  for (std::size_t i = 0; i < uses.size(); ++i) {
    const auto& chunk = plan.chunks[uses[i].chunk];
    std::optional<kernels::draw_rule> rule;
    if (uses[i].draws && chunk.banned.empty()) rule = slot(chunk.slot).draw.rule(uses[i].position);
    // A soft cap keeps the order of logits, not their distances.
    if (capped && rule && rule->temperature != 0.0F) rule.reset();
    if (rule)
      rules[i] = *rule;  // rows that are the host's have the cheapest rule; it is not asked for
    else
      left.push_back(i);
  }
  if (left.size() == uses.size()) return;
  if (!device->draw(pass->logits(), rules, drawn)) drawn.assign(uses.size(), -1);
  for (const auto i : left) drawn[i] = -1;
  left.clear();
  for (std::size_t i = 0; i < uses.size(); ++i) {
    if (drawn[i] < 0)
      left.push_back(i);
    else
      outcomes[i].id = drawn[i];
  }
}

void step_runner::state::sample() {
  draw_on_device();
  for_runs(left, [&](std::span<const std::size_t> run) {
    const auto all = pass->logits();
    const auto first = static_cast<std::int64_t>(run.front());
    const auto count = static_cast<std::int64_t>(run.back()) - first + 1;
    const auto logits = device->to_host({all.row(first), count, all.columns, all.stride});
    device->for_each(std::ssize(run), [&](std::int64_t i) {
      const auto index = run[static_cast<std::size_t>(i)];
      auto* const at = logits.row(static_cast<std::int64_t>(index) - first);
      soft_cap({at, static_cast<std::size_t>(logits.columns)}, pass->model().config.logit_softcap);
      sample_row(index, {at, static_cast<std::size_t>(logits.columns)});
    });
  });
}

void step_runner::state::sample_row(std::size_t index, std::span<float> logits_V) {
  const auto& use = rows.uses()[index];
  const auto& chunk = plan.chunks[use.chunk];
  auto& held = slot(chunk.slot);
  if (!use.draws) {
    outcomes[index] = score(logits_V, use.next, held.prompt_logprobs);
    return;
  }
  auto room = scratch.take();
  outcomes[index] = held.draw.sample(logits_V, use.position, chunk.banned, room);
  scratch.give(std::move(room));
}

result<void> step_runner::begin(step_plan plan) {
  auto& s = *state_;
  ensure(s.now == state::phase::idle, "a step begins while another runs");
  if (auto fits = s.check(plan); !fits) return fits;
  const auto began = steady::now();
  s.plan = std::move(plan);
  for (auto slot : s.plan.releases) s.slots[static_cast<std::size_t>(slot)].reset();
  for (auto& start : s.plan.starts) {
    auto& held = s.slots[static_cast<std::size_t>(start.slot)].emplace(
        sequence{start.variant,
                 sampler(start.sampling, start.choice, start.prompt, start.generated),
                 start.sampling.prompt_logprobs,
                 {},
                 {}});
    if (start.sampling.prompt_logprobs >= 0) held.prompt = std::move(start.prompt);
    held.blocks.reserve(static_cast<std::size_t>(blocks_for(s.limits.context_length)));
  }
  s.lay_out();
  s.copied = 0;
  if (s.plan.copies.empty())
    s.begin_passes();
  else
    s.now = state::phase::copy;
  s.worked = steady::now() - began;
  return {};
}

bool step_runner::advance() {
  auto& s = *state_;
  ensure(s.now != state::phase::idle, "no step to advance");
  const auto began = steady::now();
  bool more = true;
  if (s.now == state::phase::copy) {
    s.copy();
    if (s.copied == s.plan.copies.size()) s.begin_passes();
  } else if (s.now == state::phase::forward) {
    if (!s.pass->advance()) {
      if (++s.running < s.rows.pass_count())
        s.pass->begin(s.rows.pass(s.running));
      else
        s.now = state::phase::sample;
    }
  } else {
    if (!s.rows.uses().empty() && s.pass->model().place.rank == 0) s.sample();
    more = false;
  }
  s.worked += steady::now() - began;
  return more;
}

step_result step_runner::finish() {
  auto& s = *state_;
  ensure(s.now == state::phase::sample, "the step is not done");
  step_result done;
  done.number = s.plan.number;
  for (std::size_t c = 0; c < s.plan.chunks.size(); ++c) {
    const auto slot = s.plan.chunks[c].slot;
    const auto [first, count] = s.rows.uses_of(c);
    for (std::size_t i = first; i < first + count; ++i) {
      const auto& use = s.rows.uses()[i];
      if (use.draws) {
        done.sampled.push_back({slot, std::move(s.outcomes[i])});
        continue;
      }
      if (done.prompt.empty() || done.prompt.back().slot != slot)
        done.prompt.push_back({slot, use.position + 1, {}});
      done.prompt.back().scores.push_back(std::move(s.outcomes[i]));
    }
  }
  done.device_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(s.worked).count();
  s.end_step();
  return done;
}

bool step_runner::busy() const { return state_->now != state::phase::idle; }

void step_runner::reset() {
  // A forward pass given up in the middle leaves nothing behind: the next one begins anew.
  state_->end_step();
  for (auto& slot : state_->slots) slot.reset();
}

result<void> step_runner::add_variant(variant_id id, const variant& what) {
  auto& s = *state_;
  const bool has_adapter = what.adapter != nullptr;
  const bool has_weights = what.weights != nullptr;
  if (id == 0 || has_adapter == has_weights)
    return error{errc::internal,
                 fmt::format("variant {}: exactly one of adapter and weights is wanted", id),
                 {}};
  if (s.variants.contains(id))
    return error{errc::conflict, fmt::format("variant {} is here already", id), {}};
  auto fits = has_adapter ? s.pass->check(*what.adapter) : s.pass->check(*what.weights);
  if (fits) s.variants.emplace(id, what);
  return fits;
}

void step_runner::remove_variant(variant_id id) { state_->variants.erase(id); }

const model::weights& step_runner::model() const { return state_->pass->model(); }
const model::forward_pass& step_runner::pass() const { return *state_->pass; }

}  // namespace tandem::serve
