#include "gateway/openai/answer_format.hpp"

#include "gateway/json_writer.hpp"
#include "gateway/version.hpp"

#include <algorithm>
#include <cmath>

namespace tandem::gateway::openai {

std::string_view finish_name(serve::finish_reason finish) {
  return finish == serve::finish_reason::length ? "length" : "stop";
}

void append_stop_reason(std::string& out, const answer_context& context, const choice_part& part) {
  const auto& ends = context.model->eos_ids;
  out += R"(,"stop_reason":)";
  if (part.stop_string) {
    append_json_string(out, *part.stop_string);
  } else if (part.stop_token &&
             std::find(ends.begin(), ends.end(), *part.stop_token) == ends.end()) {
    append_number(out, std::int64_t{*part.stop_token});
  } else {
    out += "null";
  }
}

void append_usage(std::string& out, const usage_totals& usage) {
  out += R"({"prompt_tokens":)";
  append_number(out, usage.prompt_tokens);
  out += R"(,"completion_tokens":)";
  append_number(out, usage.completion_tokens);
  out += R"(,"total_tokens":)";
  append_number(out, usage.prompt_tokens + usage.completion_tokens);
  out += R"(,"prompt_tokens_details":{"cached_tokens":)";
  append_number(out, usage.cached_tokens);
  out += R"(},"completion_tokens_details":{"reasoning_tokens":0}})";
}

void append_tandem(std::string& out, const served_model& model, std::uint64_t weights_version,
                   std::int64_t queued_ns) {
  out += R"({"weights_version":)";
  append_number(out, static_cast<std::int64_t>(weights_version));
  out += R"(,"devices":[)";
  for (std::size_t i = 0; i < model.devices.size(); ++i) {
    if (i > 0) out += ',';
    append_json_string(out, model.devices[i]);
  }
  out += R"(],"queued_ms":)";
  append_number(out, std::round(static_cast<double>(queued_ns) / 1e3) / 1e3);
  out += '}';
}

void append_head(std::string& out, const answer_context& context, std::string_view object,
                 std::uint64_t weights_version) {
  out += R"({"id":)";
  append_json_string(out, context.id);
  out += R"(,"object":)";
  append_json_string(out, object);
  out += R"(,"created":)";
  append_number(out, context.created);
  out += R"(,"model":)";
  append_json_string(out, context.model->id);
  out += R"(,"system_fingerprint":"tandem-)";
  out += version;
  out += "-w";
  append_number(out, static_cast<std::int64_t>(weights_version));
  out += '"';
}

}  // namespace tandem::gateway::openai
