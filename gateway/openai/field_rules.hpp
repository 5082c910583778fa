// The readers of single fields behind request_fields' table.
#pragma once

#include "gateway/openai/request_fields.hpp"

namespace tandem::gateway::openai {

inline constexpr std::size_t short_string_bytes = 256;
inline constexpr std::size_t stop_bytes_max = 1024;
inline constexpr std::size_t template_bytes_max = 256U << 10U;
inline constexpr std::size_t logit_bias_max = 1024;
inline constexpr std::size_t stop_token_ids_max = 1024;

result<void> read_stop(const json_field& field, request_fields& out);
result<void> read_logit_bias(const json_field& field, request_fields& out);
result<void> read_stream_options(const json_field& field, request_fields& out);
result<void> read_response_format(const json_field& field, request_fields& out);
result<void> read_tool_choice(const json_field& field, request_fields& out);
result<void> read_modalities(const json_field& field, request_fields& out);

// Token ids of any vocabulary: 0 to 2^31-1. A prompt's own are checked against the model later.
result<std::vector<std::int32_t>> read_token_ids(const json_field& field, std::size_t count_max);

}  // namespace tandem::gateway::openai
