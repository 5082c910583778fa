// What one inference step runs, and what came of it. Plans name sequences by slot: a slot is a row
// of the device's sequence state (its sampler, its block table), given out by the scheduler.
#pragma once

#include "runtime/memory/kv_memory.hpp"
#include "runtime/serve/request.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tandem::serve {

using slot_index = std::int32_t;

// A sequence takes a slot. `history` is what penalties count: the prompt, and what was already
// generated when it was preempted and comes back.
struct slot_start {
  slot_index slot = 0;
  variant_id variant = 0;
  sampling_parameters sampling;
  int choice = 0;
  std::vector<token_id> prompt;
  std::vector<token_id> generated;
  bool operator==(const slot_start&) const = default;
};

// In a plan made ahead of the step before it: the token that that step draws for this slot.
inline constexpr token_id drawn_before = -1;

// Consecutive tokens of one sequence. Blocks are appended to the slot's table before the step.
struct step_chunk {
  slot_index slot = 0;
  int first_position = 0;
  std::vector<token_id> tokens;
  std::vector<std::int32_t> new_blocks;
  bool sample = false;           // the last row's logits give the next token
  bool prompt_logprobs = false;  // every row's logits are wanted
  std::vector<token_id> banned;  // may not be sampled (end tokens before min_tokens)
  bool operator==(const step_chunk&) const = default;
};

// Keys and values of another device, copied into this one's blocks: of this process, or of another
// one of this machine.
struct kv_copy {
  std::shared_ptr<const memory::kv_memory> from;
  std::vector<std::pair<std::int32_t, std::int32_t>> blocks;  // there, here
  bool operator==(const kv_copy&) const = default;
};

// The parameter of the refusal of a step whose copies come from a process that is gone: nothing of
// it was done.
inline constexpr const char* kv_out_of_reach = "kv_copy";

// Order of execution: releases, then starts, then copies, then chunks.
struct step_plan {
  std::uint64_t number = 0;
  // Made ahead: runs right after the step of this number, whose draws it goes on from; 0: not.
  std::uint64_t follows = 0;
  std::vector<slot_index> releases;
  std::vector<slot_start> starts;
  std::vector<kv_copy> copies;
  std::vector<step_chunk> chunks;
  int rows() const {
    int n = 0;
    for (const auto& c : chunks) n += static_cast<int>(c.tokens.size());
    return n;
  }
  bool operator==(const step_plan&) const = default;
};

struct sampled_token {
  slot_index slot = 0;
  token_logprob token;  // logprob and top filled only when asked for
  bool operator==(const sampled_token&) const = default;
};

struct prompt_scores {
  slot_index slot = 0;
  int first_position = 0;  // scores[i] is of the token at first_position + i
  std::vector<token_logprob> scores;
  bool operator==(const prompt_scores&) const = default;
};

struct step_result {
  std::uint64_t number = 0;
  std::vector<sampled_token> sampled;  // one per sampling chunk, in plan order
  std::vector<prompt_scores> prompt;   // of prompt_logprobs chunks
  std::int64_t device_ns = 0;          // time the device worked on it
  bool operator==(const step_result&) const = default;
};

// Puts what was drawn where `plan` says drawn_before; both name slots in one order. False: a slot
// is missing.
bool fill_drawn(step_plan& plan, const std::vector<sampled_token>& drawn);

}  // namespace tandem::serve
