#include "gateway/openai/logprobs.hpp"

#include "gateway/json_writer.hpp"

#include <algorithm>

namespace tandem::gateway::openai {

namespace {

// OpenAI's "very unlikely": JSON has no minus infinity.
constexpr std::string_view very_unlikely = "-9999.0";

void append_bytes(std::string& out, const answer_context& context, serve::token_id id) {
  if (context.model->tokenizer == nullptr) {
    out += "null";
    return;
  }
  out += '[';
  bool first = true;
  for (const char byte : context.model->tokenizer->token_bytes(id)) {
    if (!first) out += ',';
    first = false;
    append_number(out, std::int64_t{static_cast<unsigned char>(byte)});
  }
  out += ']';
}

void append_token(std::string& out, const answer_context& context, serve::token_id id,
                  float logprob) {
  out += R"({"token":)";
  append_json_string(out, token_text(context, id));
  out += R"(,"logprob":)";
  append_number(out, logprob, very_unlikely);
  out += R"(,"bytes":)";
  append_bytes(out, context, id);
}

std::size_t shown(const std::vector<std::pair<serve::token_id, float>>& top, int most) {
  return std::min(top.size(), static_cast<std::size_t>(std::max(most, 0)));
}

// The alternatives by their text; the token itself is always among them. Ids that read the same
// would be one key: the likelier stays.
void append_top_map(std::string& out, const answer_context& context,
                    const serve::token_logprob& token) {
  std::vector<std::string> keys;
  const auto append = [&](serve::token_id id, float logprob) {
    std::string key = token_text(context, id);
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) return;
    if (!keys.empty()) out += ',';
    append_json_string(out, key);
    out += ':';
    append_number(out, logprob, very_unlikely);
    keys.push_back(std::move(key));
  };
  out += '{';
  for (std::size_t i = 0; i < shown(token.top, context.logprobs); ++i)
    append(token.top[i].first, token.top[i].second);
  append(token.id, token.logprob);
  out += '}';
}

}  // namespace

std::string token_text(const answer_context& context, serve::token_id id) {
  if (context.model->tokenizer == nullptr || context.tokens_as_ids)
    return "token_id:" + std::to_string(id);
  return to_valid_utf8(context.model->tokenizer->token_bytes(id));
}

void append_chat_logprobs(std::string& out, const answer_context& context,
                          std::span<const serve::token_logprob> tokens) {
  out += R"({"content":[)";
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) out += ',';
    append_token(out, context, tokens[i].id, tokens[i].logprob);
    out += R"(,"top_logprobs":[)";
    for (std::size_t k = 0; k < shown(tokens[i].top, context.logprobs); ++k) {
      if (k > 0) out += ',';
      append_token(out, context, tokens[i].top[k].first, tokens[i].top[k].second);
      out += '}';
    }
    out += "]}";
  }
  out += R"(],"refusal":null})";
}

void append_completion_logprobs(std::string& out, const answer_context& context,
                                std::span<const serve::token_id> prompt,
                                std::span<const serve::token_logprob> prompt_logprobs,
                                std::span<const serve::token_logprob> tokens,
                                std::int64_t text_offset) {
  std::string names;
  std::string logprobs;
  std::string tops;
  std::string offsets;
  const auto append = [&](serve::token_id id, const serve::token_logprob* known) {
    if (!names.empty()) {
      names += ',';
      logprobs += ',';
      tops += ',';
      offsets += ',';
    }
    const std::string text = token_text(context, id);
    append_json_string(names, text);
    append_number(offsets, text_offset);
    text_offset += characters(text);
    if (known == nullptr) {
      logprobs += "null";
      tops += "null";
      return;
    }
    append_number(logprobs, known->logprob, very_unlikely);
    append_top_map(tops, context, *known);
  };
  for (std::size_t i = 0; i < prompt.size(); ++i) {
    const bool known = i > 0 && i - 1 < prompt_logprobs.size();
    append(prompt[i], known ? &prompt_logprobs[i - 1] : nullptr);
  }
  for (const serve::token_logprob& token : tokens) append(token.id, &token);
  out += R"({"tokens":[)" + names + R"(],"token_logprobs":[)" + logprobs + R"(],"top_logprobs":[)" +
         tops + R"(],"text_offset":[)" + offsets + "]}";
}

void append_prompt_logprobs(std::string& out, const answer_context& context,
                            std::span<const serve::token_logprob> prompt_logprobs) {
  out += "[null";
  for (const serve::token_logprob& token : prompt_logprobs) {
    out += ",{";
    bool first = true;
    const auto append = [&](serve::token_id id, float logprob, std::int64_t rank) {
      if (!first) out += ',';
      first = false;
      out += '"';
      append_number(out, std::int64_t{id});
      out += R"(":{"logprob":)";
      append_number(out, logprob, very_unlikely);
      out += R"(,"rank":)";
      append_number(out, rank);
      out += R"(,"decoded_token":)";
      append_json_string(out, token_text(context, id));
      out += '}';
    };
    append(token.id, token.logprob, token.rank);
    for (std::size_t k = 0; k < shown(token.top, context.prompt_logprobs); ++k)
      if (token.top[k].first != token.id)
        append(token.top[k].first, token.top[k].second, static_cast<std::int64_t>(k) + 1);
    out += '}';
  }
  out += ']';
}

void append_ids(std::string& out, std::span<const serve::token_id> ids) {
  out += '[';
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out += ',';
    append_number(out, std::int64_t{ids[i]});
  }
  out += ']';
}

}  // namespace tandem::gateway::openai
