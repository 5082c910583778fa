// Every field of every text route: one table says how each is called, read, bounded and described
// in /openapi.json, so that document and parser cannot differ. What is accepted and has no effect
// is listed too; anything else is ignored, with a warning when it looks misspelt.
#pragma once

#include "gateway/engine.hpp"
#include "gateway/openai/request_body.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::gateway::openai {

inline constexpr int choices_max = 128;
inline constexpr int prompts_max = 256;
inline constexpr int stop_strings_max = 4;
inline constexpr int logprobs_max = 20;

struct request_fields {
  std::string model;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  bool has_stream_options = false;

  // What to say.
  std::optional<simdjson::dom::element> prompt;    // completions, tokenize
  std::optional<simdjson::dom::element> messages;  // chat, tokenize, render
  std::optional<simdjson::dom::element> tools;
  std::optional<simdjson::dom::element> documents;
  std::optional<simdjson::dom::element> template_arguments;  // chat_template_kwargs
  std::optional<std::string> chat_template;
  std::optional<std::string> reasoning_effort;
  std::string tool_choice;  // empty: not given
  std::optional<bool> add_generation_prompt;
  bool continue_final_message = false;
  std::optional<bool> add_special_tokens;
  bool parse_special = false;  // read control tokens written in a prompt as such
  bool echo = false;
  std::vector<std::int32_t> tokens;  // detokenize
  bool return_token_strings = false;

  // How to choose.
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int> top_k;
  std::optional<float> min_p;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::optional<float> repetition_penalty;
  std::vector<std::pair<std::int32_t, float>> logit_bias;
  std::optional<std::int64_t> seed;
  int choices = 1;
  std::optional<int> best_of;

  // When to end.
  std::optional<int> max_tokens;
  std::optional<int> max_completion_tokens;
  int min_tokens = 0;
  bool ignore_eos = false;
  std::vector<std::string> stop;
  std::vector<std::int32_t> stop_token_ids;
  bool include_stop = false;
  bool skip_special_tokens = true;

  // What to tell beside the text.
  bool chat_logprobs = false;       // chat's `logprobs`
  std::optional<int> top_logprobs;  // chat
  std::optional<int> logprobs;      // completions' `logprobs`
  std::optional<int> prompt_logprobs;
  bool return_token_ids = false;
  bool tokens_as_ids = false;

  int priority = 0;
  std::string cache_salt;

  std::vector<std::string> warnings;  // for the x-tandem-warning header
};

struct field_rule {
  std::string_view name;
  std::string_view schema;  // JSON schema
  result<void> (*read)(const json_field&, request_fields&);
};

enum class text_route { chat, completions, tokenize, detokenize, render };

// The fields of a route, in the order of the documentation.
std::vector<field_rule> rules_of(text_route route);

// Reads all fields the route knows and checks those that depend on each other. A null is as good as
// a field left out.
result<request_fields> read_fields(text_route route, const request_body& body);

// {"type": "object", "properties": …} of a route's body.
std::string request_schema(text_route route);

}  // namespace tandem::gateway::openai
