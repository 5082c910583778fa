// How an answer looks in JSON: what is fixed before its first token, what one choice holds, and the
// two shapes (chat, completion) that the same answer can take, whole or in chunks.
#pragma once

#include "gateway/engine.hpp"
#include "gateway/http.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::gateway::openai {

struct answer_context {
  std::string id;
  std::int64_t created = 0;
  std::shared_ptr<const served_model> model;
  int choices_per_prompt = 1;
  bool include_usage = false;     // streams
  bool continuous_usage = false;  // streams
  int logprobs = -1;              // alternatives to show per token; -1: none
  int prompt_logprobs = -1;       // in a field of their own
  bool return_token_ids = false;
  bool tokens_as_ids = false;
  bool hide_completion = false;  // max_tokens 0: only the prompt is wanted
  // Kept only for what shows them: echo, return_token_ids, prompt_logprobs. One per prompt.
  std::vector<std::vector<serve::token_id>> prompts;
  std::vector<std::string> echo;  // the prompts' texts; empty: no echo
  header_list headers;            // warnings
  int heartbeat_ms = 5'000;
};

// What one choice holds: all of it, or what a chunk adds.
struct choice_part {
  int index = 0;
  std::string text;
  std::vector<serve::token_id> tokens;
  std::vector<serve::token_logprob> logprobs;
  std::vector<serve::token_logprob> prompt_logprobs;
  serve::finish_reason finish = serve::finish_reason::none;
  std::optional<std::string> stop_string;
  std::optional<serve::token_id> stop_token;
  std::int64_t text_offset = 0;  // characters of the choice's text before this part
};

enum class part_kind {
  whole,    // the choice of an answer that is not streamed
  opening,  // the first chunk of a choice: the role, or the echoed prompt
  delta,    // text
  ending,   // the chunk that carries finish_reason
};

class answer_format {
 public:
  virtual ~answer_format() = default;
  virtual std::string_view object(bool streamed) const = 0;
  // Whether a stream's choices begin with a chunk of their own.
  virtual bool has_opening(const answer_context& context) const = 0;
  // One element of "choices".
  virtual void append_choice(std::string& out, const answer_context& context,
                             const choice_part& part, part_kind kind) const = 0;
  // Fields of the body beside OpenAI's common ones, each with a comma before it.
  virtual void append_extras(std::string& out, const answer_context& context,
                             const std::vector<choice_part>& choices) const = 0;
};

const answer_format& chat_format();
const answer_format& completion_format();

// "stop" or "length".
std::string_view finish_name(serve::finish_reason finish);
// `,"stop_reason":…`: the string or token that ended it, null for the model's own end.
void append_stop_reason(std::string& out, const answer_context& context, const choice_part& part);

struct usage_totals {
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;
  std::int64_t completion_tokens = 0;
};
void append_usage(std::string& out, const usage_totals& usage);
// {"weights_version", "devices", "queued_ms"}
void append_tandem(std::string& out, const served_model& model, std::uint64_t weights_version,
                   std::int64_t queued_ns);
// `{"id":…,"object":…,"created":…,"model":…,"system_fingerprint":…` without the closing brace.
void append_head(std::string& out, const answer_context& context, std::string_view object,
                 std::uint64_t weights_version);

}  // namespace tandem::gateway::openai
