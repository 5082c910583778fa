// A generation request as the engine sees it: token ids and checked numbers, nothing of HTTP.
#pragma once

#include "runtime/result.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tandem::serve {

using token_id = std::int32_t;
using request_id = std::uint64_t;
// Which weights a sequence runs on: 0 is the base as loaded, others are versions published later
// (device::add_variant). A sequence keeps the one it began with. Never given twice.
using variant_id = std::uint64_t;
// Time since an arbitrary start, in nanoseconds: the caller's clock, virtual in a simulation.
using time_ns = std::int64_t;

struct sampling_parameters {
  float temperature = 1.0F;  // 0: greedy
  float top_p = 1.0F;
  int top_k = 0;  // 0: all
  float min_p = 0.0F;
  float presence_penalty = 0.0F;   // OpenAI: on generated tokens
  float frequency_penalty = 0.0F;  // OpenAI: on generated tokens
  float repetition_penalty =
      1.0F;  // Keskar et al. 2019 (arXiv:1909.05858): on prompt and generated
  std::vector<std::pair<token_id, float>> logit_bias;
  std::uint64_t seed = 0;    // the caller draws one when the user gave none
  int logprobs = -1;         // top alternatives to report per generated token; -1: none
  int prompt_logprobs = -1;  // likewise for each prompt token after the first
  bool operator==(const sampling_parameters&) const = default;
};

struct stop_conditions {
  int max_tokens = 16;
  int min_tokens = 0;
  bool ignore_eos = false;
  std::vector<token_id> eos_ids;         // the model's; end of text, not part of the output
  std::vector<token_id> stop_token_ids;  // the user's; likewise
  std::vector<std::string> stop;         // strings, matched across tokens
  bool include_stop = false;             // keep the matched stop string in the output
  bool operator==(const stop_conditions&) const = default;
};

struct generation_request {
  request_id id = 0;
  std::string model;       // the base's name or a version's
  variant_id variant = 0;  // what that name means: filled in by the serve coordinator
  std::vector<token_id> prompt;
  sampling_parameters sampling;
  stop_conditions stops;
  int choices = 1;         // n: choice i samples with its own stream of the seed
  int best_of = 1;         // reserved: equals choices
  int priority = 0;        // smaller runs first, as vLLM has it
  std::string cache_salt;  // prefixes are shared only under equal salts
  bool use_prefix_cache = true;
  time_ns arrived = 0;
  time_ns deadline = 0;  // 0: none
  bool skip_special_tokens = true;
  bool want_text = true;  // false: token ids only (models without a tokenizer)
};

struct token_logprob {
  token_id id = 0;
  float logprob = 0.0F;
  int rank = 0;                                 // 1: the most likely
  std::vector<std::pair<token_id, float>> top;  // the asked-for alternatives, best first
  bool operator==(const token_logprob&) const = default;
};

enum class finish_reason : std::uint8_t { none, stop, length, cancelled, error };

// Something new of one choice. Deltas of a choice arrive in order; `finish` is set on its last one.
struct generation_delta {
  request_id id = 0;
  int choice = 0;
  std::string text;  // whole characters only
  std::vector<token_id> tokens;
  std::vector<token_logprob> logprobs;         // one per token when asked for
  std::vector<token_logprob> prompt_logprobs;  // once, on the first delta, when asked for
  finish_reason finish = finish_reason::none;
  std::optional<std::string> stop_string;  // what ended it, when a string did
  std::optional<token_id> stop_token;
  std::optional<tandem::error> failure;  // with finish_reason::error
  // Totals, valid on every delta:
  int prompt_tokens = 0;
  int cached_tokens = 0;       // of the prompt, read from the prefix cache
  int completion_tokens = 0;   // of this choice so far
  std::int64_t queued_ns = 0;  // waited before its first step
  std::uint64_t weights_version = 0;
};

}  // namespace tandem::serve
