// What the generating endpoints (chat_completions, completions) share around their own prompts.
#pragma once

#include "gateway/openai/answer_format.hpp"
#include "gateway/openai/endpoints.hpp"
#include "gateway/openai/request_fields.hpp"

#include <functional>
#include <string_view>
#include <vector>

namespace tandem::gateway::openai {

// A handler that may refuse: the refusal becomes the answer.
http_handler answering(
    std::function<result<void>(const http_request&, const std::shared_ptr<responder>&)> handler);

// "chatcmpl-" and 24 hexadecimal digits nobody can guess.
std::string new_id(std::string_view prefix);

// The fixed part of an answer, but for prompts and echo.
answer_context context_of(const request_fields& fields, std::shared_ptr<const served_model> model,
                          const endpoint_context& endpoint, std::string_view id_prefix);

// Stamps arrival and deadline, then submits all of them as one answer.
void answer_with(const endpoint_context& endpoint, const request_fields& fields,
                 answer_context context, const answer_format& format,
                 std::vector<serve::generation_request> requests, std::shared_ptr<responder> to);

// One warning header a misspelt field.
header_list warning_headers(const request_fields& fields);

}  // namespace tandem::gateway::openai
