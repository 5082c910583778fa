#include "runtime/serve/step_runner.hpp"

#include "runtime/serve/sampler.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <optional>
#include <utility>

namespace tandem::serve {
namespace {

using steady = std::chrono::steady_clock;

struct sequence {
  sampler draw;
  int prompt_logprobs;               // alternatives to report per prompt token
  std::vector<token_id> prompt;      // kept only when it is scored
  std::vector<std::int32_t> blocks;  // reserved for the longest sequence at creation
};

// A row of logits that somebody wants, and what for.
struct logit_use {
  std::size_t chunk = 0;
  int position = 0;  // of the row
  bool draws = false;
  token_id next = -1;  // otherwise: the prompt's own next token, to be scored
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

std::int64_t blocks_for(std::int64_t positions) {
  return (positions + kernels::kv_block_positions - 1) / kernels::kv_block_positions;
}

}  // namespace

struct step_runner::state {
  kernels::backend* device = nullptr;
  runner_limits limits;
  std::unique_ptr<model::forward_pass> pass;
  std::vector<std::optional<sequence>> slots;
  scratch_pool scratch;

  // The step in flight.
  enum class phase { idle, forward, sample } now = phase::idle;
  step_plan plan;
  steady::duration worked{};
  std::vector<std::int32_t> ids_T, positions_T, logit_rows;
  std::vector<kernels::attention_span> spans;
  std::vector<logit_use> uses;
  std::vector<token_logprob> outcomes;  // one per use

  result<void> check(const step_plan& p) const;
  void lay_out();
  void sample();
};

result<std::unique_ptr<step_runner>> step_runner::create(
    kernels::backend& device, memory::ledger& book, std::shared_ptr<const model::weights> model,
    const runner_limits& limits) {
  ensure(limits.max_sequences > 0 && limits.max_batch_tokens > 0, "a runner without room");
  auto s = std::make_unique<state>();
  s->device = &device;
  s->limits = limits;
  auto pass = model::forward_pass::create(device, book, std::move(model),
                                          {.rows = limits.max_batch_tokens,
                                           .logit_rows = limits.max_logit_rows,
                                           .context_positions = limits.context_length,
                                           .kv_blocks = limits.kv_blocks,
                                           .kv = limits.kv});
  if (!pass) return pass.error();
  s->pass = *std::move(pass);
  s->slots.resize(static_cast<std::size_t>(limits.max_sequences));
  const auto rows = static_cast<std::size_t>(limits.max_batch_tokens);
  s->ids_T.reserve(rows);
  s->positions_T.reserve(rows);
  s->logit_rows.reserve(rows);
  s->uses.reserve(rows);
  s->spans.reserve(rows);
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
  for (std::size_t i = 0; i < slots.size(); ++i) {
    live[i] = slots[i].has_value();
    if (slots[i]) held_blocks[i] = slots[i]->blocks.size();
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
  }
  if (p.rows() > limits.max_batch_tokens)
    return refuse(fmt::format("{} rows, the limit is {}", p.rows(), limits.max_batch_tokens));
  std::int64_t wanted = 0;
  for (const auto& chunk : p.chunks) {
    if (!known(chunk.slot) || !live[static_cast<std::size_t>(chunk.slot)])
      return refuse(fmt::format("runs slot {}, which nobody holds", chunk.slot));
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

// From the plan's words to the forward pass's rows.
void step_runner::state::lay_out() {
  ids_T.clear();
  positions_T.clear();
  logit_rows.clear();
  spans.clear();
  uses.clear();
  for (std::size_t c = 0; c < plan.chunks.size(); ++c) {
    const auto& chunk = plan.chunks[c];
    auto& held = *slots[static_cast<std::size_t>(chunk.slot)];
    held.blocks.insert(held.blocks.end(), chunk.new_blocks.begin(), chunk.new_blocks.end());
    const auto first_row = static_cast<std::int32_t>(ids_T.size());
    const auto count = static_cast<std::int32_t>(chunk.tokens.size());
    spans.push_back({first_row, count, chunk.first_position, held.blocks.data()});
    for (std::int32_t i = 0; i < count; ++i) {
      ids_T.push_back(chunk.tokens[static_cast<std::size_t>(i)]);
      positions_T.push_back(chunk.first_position + i);
      const bool last = i + 1 == count;
      const bool draws = last && chunk.sample;
      if (!draws && !chunk.prompt_logprobs) continue;
      const auto following = static_cast<std::size_t>(chunk.first_position + i) + 1;
      const bool scores = chunk.prompt_logprobs && following < held.prompt.size();
      if (!draws && !scores) continue;
      logit_rows.push_back(first_row + i);
      uses.push_back({c, chunk.first_position + i, draws, scores ? held.prompt[following] : -1});
    }
  }
  outcomes.assign(uses.size(), {});
}

void step_runner::state::sample() {
  const auto logits = pass->logits();
  device->for_each(static_cast<std::int64_t>(uses.size()), [&](std::int64_t i) {
    const auto& use = uses[static_cast<std::size_t>(i)];
    const auto& chunk = plan.chunks[use.chunk];
    auto& held = *slots[static_cast<std::size_t>(chunk.slot)];
    const std::span<float> row{logits.row(i), static_cast<std::size_t>(logits.columns)};
    auto& outcome = outcomes[static_cast<std::size_t>(i)];
    if (use.draws) {
      auto room = scratch.take();
      outcome = held.draw.sample(row, use.position, chunk.banned, room);
      scratch.give(std::move(room));
    } else {
      outcome = score(row, use.next, held.prompt_logprobs);
    }
  });
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
        sequence{sampler(start.sampling, start.choice, start.prompt, start.generated),
                 start.sampling.prompt_logprobs,
                 {},
                 {}});
    if (start.sampling.prompt_logprobs >= 0) held.prompt = std::move(start.prompt);
    held.blocks.reserve(static_cast<std::size_t>(blocks_for(s.limits.context_length)));
  }
  s.lay_out();
  if (!s.ids_T.empty()) s.pass->begin({s.ids_T, s.positions_T, s.spans, s.logit_rows});
  s.now = s.ids_T.empty() ? state::phase::sample : state::phase::forward;
  s.worked = steady::now() - began;
  return {};
}

bool step_runner::advance() {
  auto& s = *state_;
  ensure(s.now != state::phase::idle, "no step to advance");
  const auto began = steady::now();
  bool more = true;
  if (s.now == state::phase::forward) {
    if (!s.pass->advance()) s.now = state::phase::sample;
  } else {
    if (!s.uses.empty()) s.sample();
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
  for (std::size_t i = 0; i < s.uses.size(); ++i) {
    const auto& use = s.uses[i];
    const auto slot = s.plan.chunks[use.chunk].slot;
    if (use.draws) {
      done.sampled.push_back({slot, std::move(s.outcomes[i])});
      continue;
    }
    if (done.prompt.empty() || done.prompt.back().slot != slot)
      done.prompt.push_back({slot, use.position + 1, {}});
    done.prompt.back().scores.push_back(std::move(s.outcomes[i]));
  }
  done.device_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(s.worked).count();
  s.now = state::phase::idle;
  return done;
}

bool step_runner::busy() const { return state_->now != state::phase::idle; }

void step_runner::reset() {
  // A forward pass given up in the middle leaves nothing behind: the next one begins anew.
  state_->now = state::phase::idle;
  for (auto& slot : state_->slots) slot.reset();
}

const model::weights& step_runner::model() const { return state_->pass->model(); }

}  // namespace tandem::serve
