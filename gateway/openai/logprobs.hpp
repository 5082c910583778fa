// Log-probabilities in the three shapes that clients read: chat's list of objects, completions'
// parallel arrays, and vLLM's maps for the tokens of a prompt.
#pragma once

#include "gateway/openai/answer_format.hpp"

#include <span>

namespace tandem::gateway::openai {

// The token's text inside a text; "token_id:N" without a tokenizer or when ids are asked for.
std::string token_text(const answer_context& context, serve::token_id id);

// {"content": [{token, logprob, bytes, top_logprobs}], "refusal": null}
void append_chat_logprobs(std::string& out, const answer_context& context,
                          std::span<const serve::token_logprob> tokens);

// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}. `prompt` and `prompt_logprobs` are
// the echoed ones (empty without echo): the first token of a prompt has null for its
// log-probability.
void append_completion_logprobs(std::string& out, const answer_context& context,
                                std::span<const serve::token_id> prompt,
                                std::span<const serve::token_logprob> prompt_logprobs,
                                std::span<const serve::token_logprob> tokens,
                                std::int64_t text_offset);

// [null, {"ID": {"logprob", "rank", "decoded_token"}, …}, …]
void append_prompt_logprobs(std::string& out, const answer_context& context,
                            std::span<const serve::token_logprob> prompt_logprobs);

// [1, 2, 3]
void append_ids(std::string& out, std::span<const serve::token_id> ids);

}  // namespace tandem::gateway::openai
