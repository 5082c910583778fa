// From checked fields to what the engine runs: the model's own defaults, ids within its vocabulary,
// and a prompt that fits its context together with its completion.
#pragma once

#include "gateway/openai/request_fields.hpp"

#include <vector>

namespace tandem::gateway::openai {

// Which limit a route gives a completion when the request gives none.
enum class default_length { rest_of_context, sixteen };

// The named model, or "The model 'x' does not exist" with those that do.
result<std::shared_ptr<const served_model>> find_model(const engine& e, const std::string& id);
// As find_model, and an empty name means the only base model there is (tokenize, render).
result<std::shared_ptr<const served_model>> find_model_or_only(const engine& e,
                                                               const std::string& id);

// The engine takes requests now; else why not (unavailable).
result<void> check_ready(const engine& e);

// Everything of a request but its prompt. Ids outside the vocabulary are refused.
result<serve::generation_request> generation_without_prompt(const request_fields& fields,
                                                            const served_model& model);

// Puts the prompt in and sets max_tokens; refuses what the context cannot hold.
result<serve::generation_request> with_prompt(const serve::generation_request& base,
                                              std::vector<serve::token_id> prompt,
                                              const request_fields& fields,
                                              const served_model& model, default_length otherwise);

}  // namespace tandem::gateway::openai
