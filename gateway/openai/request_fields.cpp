#include "gateway/openai/request_fields.hpp"

#include "gateway/json_writer.hpp"
#include "gateway/openai/field_rules.hpp"
#include "gateway/openai/misspelling.hpp"

#include <fmt/format.h>

#include <array>
#include <unordered_map>

namespace tandem::gateway::openai {

namespace {

constexpr std::size_t warnings_max = 4;

// Fields whose loss changes the text without anybody noticing.
constexpr auto worth_a_warning = std::to_array<std::string_view>({"temperature",
                                                                  "top_p",
                                                                  "top_k",
                                                                  "min_p",
                                                                  "presence_penalty",
                                                                  "frequency_penalty",
                                                                  "repetition_penalty",
                                                                  "logit_bias",
                                                                  "seed",
                                                                  "n",
                                                                  "max_tokens",
                                                                  "max_completion_tokens",
                                                                  "min_tokens",
                                                                  "ignore_eos",
                                                                  "stop",
                                                                  "stop_token_ids",
                                                                  "logprobs",
                                                                  "top_logprobs",
                                                                  "prompt_logprobs",
                                                                  "stream",
                                                                  "stream_options",
                                                                  "echo",
                                                                  "response_format",
                                                                  "tools",
                                                                  "tool_choice",
                                                                  "chat_template",
                                                                  "chat_template_kwargs",
                                                                  "add_generation_prompt",
                                                                  "continue_final_message",
                                                                  "return_token_ids",
                                                                  "skip_special_tokens"});

using rule_index = std::unordered_map<std::string_view, const field_rule*>;

struct route_rules {
  std::vector<field_rule> rules;
  rule_index by_name;

  explicit route_rules(text_route route) : rules(rules_of(route)) {
    for (const field_rule& rule : rules) by_name.emplace(rule.name, &rule);
  }
  route_rules(const route_rules&) = delete;
  route_rules& operator=(const route_rules&) = delete;
};

const route_rules& known_rules(text_route route) {
  static const route_rules chat(text_route::chat);
  static const route_rules completions(text_route::completions);
  static const route_rules tokenize(text_route::tokenize);
  static const route_rules detokenize(text_route::detokenize);
  static const route_rules render(text_route::render);
  switch (route) {
    case text_route::chat:
      return chat;
    case text_route::completions:
      return completions;
    case text_route::tokenize:
      return tokenize;
    case text_route::detokenize:
      return detokenize;
    case text_route::render:
      break;
  }
  return render;
}

// The name goes into a header, so only what cannot break one is repeated.
bool plain_name(std::string_view name) {
  for (const char c : name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '-';
    if (!plain) return false;
  }
  return true;
}

void warn_if_misspelt(std::string_view unknown, const rule_index& known, request_fields& out) {
  if (out.warnings.size() >= warnings_max || !plain_name(unknown)) return;
  const std::string_view meant = nearest_name(unknown, worth_a_warning);
  if (meant.empty() || !known.contains(meant)) return;
  out.warnings.push_back(fmt::format("unknown field '{}', did you mean '{}'?", unknown, meant));
}

result<void> check_together(const request_fields& f) {
  if (f.has_stream_options && !f.stream)
    return bad_value("stream_options", "it is only allowed when 'stream' is true");
  if (f.best_of && *f.best_of != f.choices)
    return not_built("best_of", fmt::format("only the value of 'n' ({}) is possible, but got {}",
                                            f.choices, *f.best_of));
  if (f.top_logprobs && !f.chat_logprobs)
    return bad_value("top_logprobs", "it is only allowed when 'logprobs' is true");
  if (f.prompt_logprobs && f.stream)
    return bad_value("prompt_logprobs", "it is not available when 'stream' is true");
  const auto limit = f.max_completion_tokens ? f.max_completion_tokens : f.max_tokens;
  if (limit && f.min_tokens > *limit)
    return bad_value("min_tokens", fmt::format("it must not be above max_tokens ({}), but got {}",
                                               *limit, f.min_tokens));
  if (f.continue_final_message && f.add_generation_prompt.value_or(false))
    return bad_value("continue_final_message",
                     "it cannot be true together with 'add_generation_prompt'");
  return {};
}

}  // namespace

result<request_fields> read_fields(text_route route, const request_body& body) {
  const rule_index& known = known_rules(route).by_name;
  request_fields out;
  for (const auto member : body.fields()) {
    const auto rule = known.find(member.key);
    if (rule == known.end()) {
      warn_if_misspelt(member.key, known, out);
      continue;
    }
    if (member.value.is_null()) continue;
    if (auto read = rule->second->read({std::string(member.key), member.value}, out); !read)
      return read.error();
  }
  if (auto fits = check_together(out); !fits) return fits.error();
  return out;
}

std::string request_schema(text_route route) {
  std::string schema = R"({"type":"object","properties":{)";
  bool first = true;
  for (const field_rule& rule : known_rules(route).rules) {
    if (!first) schema += ',';
    first = false;
    append_json_string(schema, rule.name);
    schema += ':';
    schema += rule.schema;
  }
  schema += R"(},"required":[)";
  if (route == text_route::chat) schema += R"("model","messages")";
  if (route == text_route::completions) schema += R"("model","prompt")";
  if (route == text_route::detokenize) schema += R"("tokens")";
  if (route == text_route::render) schema += R"("messages")";
  schema += "]}";
  return schema;
}

}  // namespace tandem::gateway::openai
