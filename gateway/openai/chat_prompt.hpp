// From messages to the prompt a model reads: messages are checked and brought into the form that
// chat templates expect, the template prints them, the tokenizer reads the print. A user's words
// stay words on the whole way: control tokens come from the template only.
#pragma once

#include "gateway/openai/request_fields.hpp"

#include <vector>

namespace tandem::gateway::openai {

// What the template sees. Roles and contents are checked; lists of text parts become one text,
// "developer" is "system", and a tool call's arguments become an object, as templates expect.
result<text::value> chat_context(const request_fields& fields, const served_model& model);

// The prompt as text pieces. Refused: a model without chat, a request's template that does not
// compile, and whatever the template itself refuses.
result<std::vector<text::prompt_piece>> render_chat(const request_fields& fields,
                                                    const served_model& model);

// The same as ids; refused early when the text cannot fit the context.
result<std::vector<serve::token_id>> chat_prompt(const request_fields& fields,
                                                 const served_model& model);

// "This model's maximum context length is N tokens. However, you requested …": clients match on it.
error context_overflow(std::int64_t context_length, std::int64_t prompt_tokens,
                       std::int64_t completion_tokens, std::string_view param);

// Text of so many bytes has at least this many tokens.
std::int64_t fewest_tokens(std::size_t bytes, const text::tokenizer& tokenizer);

}  // namespace tandem::gateway::openai
