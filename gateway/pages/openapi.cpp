// /openapi.json: OpenAPI 3.1 from the routes themselves, so that it cannot lie about what is there.
#include "gateway/json_writer.hpp"
#include "gateway/pages/pages.hpp"
#include "gateway/version.hpp"

#include <algorithm>

namespace tandem::gateway::pages {

namespace {

// Shapes that routes refer to.
constexpr std::string_view
    components = R"({"schemas":{)"
                 R"("Error":{"type":"object","required":["error"],"properties":{"error":{"type":"object","required":["message","type","param","code"],"properties":{"message":{"type":"string"},"type":{"type":"string"},"param":{"type":["string","null"]},"code":{"type":["string","null"]}}}}},)"
                 R"("Usage":{"type":"object","required":["prompt_tokens","completion_tokens","total_tokens"],"properties":{"prompt_tokens":{"type":"integer"},"completion_tokens":{"type":"integer"},"total_tokens":{"type":"integer"},"prompt_tokens_details":{"type":"object","properties":{"cached_tokens":{"type":"integer"}}},"completion_tokens_details":{"type":"object","properties":{"reasoning_tokens":{"type":"integer"}}}}},)"
                 R"("Tandem":{"type":"object","required":["weights_version","devices","queued_ms"],"properties":{"weights_version":{"type":"integer"},"devices":{"type":"array","items":{"type":"string"}},"queued_ms":{"type":"number"}}},)"
                 R"("ChatCompletion":{"type":"object","required":["id","object","created","model","choices","usage"],"properties":{"id":{"type":"string"},"object":{"const":"chat.completion"},"created":{"type":"integer"},"model":{"type":"string"},"system_fingerprint":{"type":"string"},"choices":{"type":"array","items":{"type":"object","required":["index","message","logprobs","finish_reason"],"properties":{"index":{"type":"integer"},"message":{"type":"object","required":["role","content"],"properties":{"role":{"const":"assistant"},"content":{"type":["string","null"]},"refusal":{"type":["string","null"]}}},"logprobs":{"type":["object","null"]},"finish_reason":{"enum":["stop","length"]}}}},"usage":{"$ref":"#/components/schemas/Usage"},"tandem":{"$ref":"#/components/schemas/Tandem"}}},)"
                 R"("Completion":{"type":"object","required":["id","object","created","model","choices","usage"],"properties":{"id":{"type":"string"},"object":{"const":"text_completion"},"created":{"type":"integer"},"model":{"type":"string"},"system_fingerprint":{"type":"string"},"choices":{"type":"array","items":{"type":"object","required":["index","text","logprobs","finish_reason"],"properties":{"index":{"type":"integer"},"text":{"type":"string"},"logprobs":{"type":["object","null"]},"finish_reason":{"enum":["stop","length"]}}}},"usage":{"$ref":"#/components/schemas/Usage"},"tandem":{"$ref":"#/components/schemas/Tandem"}}},)"
                 R"("Model":{"type":"object","required":["id","object","created","owned_by"],"properties":{"id":{"type":"string"},"object":{"const":"model"},"created":{"type":"integer"},"owned_by":{"type":"string"},"context_length":{"type":"integer"},"max_model_len":{"type":"integer"},"vocabulary_size":{"type":"integer"},"parameter_count":{"type":"integer"},"family":{"type":"string"},"precision":{"type":"string"},"weights_version":{"type":"integer"},"chat":{"type":"boolean"},"tokenizer":{"type":"boolean"},"sampling_defaults":{"type":"object"}}},)"
                 R"("File":{"type":"object","required":["id","object","bytes","created_at","filename","purpose","status"],"properties":{"id":{"type":"string"},"object":{"const":"file"},"bytes":{"type":"integer"},"created_at":{"type":"integer"},"expires_at":{"type":["integer","null"]},"filename":{"type":"string"},"purpose":{"type":"string"},"status":{"const":"processed"},"status_details":{"type":["string","null"]}}},)"
                 R"("Hyperparameters":{"type":["object","null"],"properties":{"n_epochs":{"oneOf":[{"const":"auto"},{"type":"integer","minimum":1,"maximum":50}]},"batch_size":{"oneOf":[{"const":"auto"},{"type":"integer","minimum":1,"maximum":256}]},"learning_rate_multiplier":{"oneOf":[{"const":"auto"},{"type":"number","exclusiveMinimum":0}]}}},)"
                 R"("FineTuningJob":{"type":"object","required":["id","object","created_at","error","finished_at","fine_tuned_model","hyperparameters","model","organization_id","result_files","status","trained_tokens","training_file","validation_file","seed"],"properties":{"id":{"type":"string"},"object":{"const":"fine_tuning.job"},"created_at":{"type":"integer"},"error":{"type":["object","null"],"properties":{"code":{"type":"string"},"message":{"type":"string"},"param":{"type":["string","null"]}}},"finished_at":{"type":["integer","null"]},"fine_tuned_model":{"type":["string","null"]},"hyperparameters":{"$ref":"#/components/schemas/Hyperparameters"},"model":{"type":"string"},"organization_id":{"type":"string"},"result_files":{"type":"array","items":{"type":"string"}},"status":{"enum":["validating_files","queued","running","paused","succeeded","failed","cancelled"]},"trained_tokens":{"type":["integer","null"]},"training_file":{"type":"string"},"validation_file":{"type":["string","null"]},"seed":{"type":"integer"},"user_provided_suffix":{"type":["string","null"]},"estimated_finish":{"type":["integer","null"]},"integrations":{"type":["array","null"]},"metadata":{"type":["object","null"]},"method":{"type":"object"},"tandem":{"type":"object"}}},)"
                 R"("FineTuningEvent":{"type":"object","required":["id","object","created_at","level","message"],"properties":{"id":{"type":"string"},"object":{"const":"fine_tuning.job.event"},"created_at":{"type":"integer"},"level":{"enum":["info","warn","error"]},"message":{"type":"string"},"type":{"enum":["message","metrics"]},"data":{"type":["object","null"]}}},)"
                 R"("FineTuningCheckpoint":{"type":"object","required":["id","object","created_at","fine_tuned_model_checkpoint","fine_tuning_job_id","step_number","metrics"],"properties":{"id":{"type":"string"},"object":{"const":"fine_tuning.job.checkpoint"},"created_at":{"type":"integer"},"fine_tuned_model_checkpoint":{"type":"string"},"fine_tuning_job_id":{"type":"string"},"step_number":{"type":"integer"},"metrics":{"type":"object"}}})"
                 R"(},"securitySchemes":{"key":{"type":"http","scheme":"bearer"},"admin":{"type":"http","scheme":"bearer"}}})";

std::string lower_case(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

// OpenAPI knows no segment that takes the rest of a path: "{id...}" is written "{id}".
std::string documented_path(std::string path) {
  for (std::size_t at = path.find("...}"); at != std::string::npos; at = path.find("...}", at))
    path.erase(at, 3);
  return path;
}

void append_parameters(std::string& out, std::string_view path) {
  bool first = true;
  for (std::size_t at = path.find('{'); at != std::string_view::npos; at = path.find('{', at + 1)) {
    out += first ? R"(,"parameters":[)" : ",";
    first = false;
    out += R"({"name":)";
    append_json_string(out, path.substr(at + 1, path.find('}', at) - at - 1));
    out += R"(,"in":"path","required":true,"schema":{"type":"string"}})";
  }
  if (!first) out += ']';
}

void append_operation(std::string& out, const route& r, const std::string& path) {
  append_json_string(out, lower_case(r.method));
  out += R"(:{"summary":)";
  append_json_string(out, r.summary);
  append_parameters(out, path);
  if (r.needs != access::open)
    out +=
        r.needs == access::admin ? R"(,"security":[{"admin":[]}])" : R"(,"security":[{"key":[]}])";
  if (!r.request_schema.empty()) {
    out += R"(,"requestBody":{"required":true,"content":{)";
    append_json_string(out, r.request_type);
    out += R"(:{"schema":)";
    out += r.request_schema;
    out += "}}}";
  }
  out += R"(,"responses":{"200":{"description":"done")";
  if (!r.response_schema.empty()) {
    out += R"(,"content":{"application/json":{"schema":)";
    out += r.response_schema;
    out += "}}";
  }
  out +=
      R"(},"default":{"description":"refused or failed","content":{"application/json":{"schema":)"
      R"({"$ref":"#/components/schemas/Error"}}}}}})";
}

}  // namespace

std::string openapi(const std::vector<route>& routes) {
  std::vector<std::string> paths;  // in the order they were added, each once
  for (const route& r : routes)
    if (auto path = documented_path(r.path);
        std::find(paths.begin(), paths.end(), path) == paths.end())
      paths.push_back(std::move(path));

  std::string out = R"({"openapi":"3.1.0","info":{"title":"tandem","description":)"
                    R"("Trains and serves language models; speaks OpenAI's API.","version":)";
  append_json_string(out, version);
  out += R"(},"paths":{)";
  for (std::size_t i = 0; i < paths.size(); ++i) {
    if (i > 0) out += ',';
    append_json_string(out, paths[i]);
    out += ":{";
    bool first = true;
    for (const route& r : routes) {
      if (documented_path(r.path) != paths[i]) continue;
      if (!first) out += ',';
      first = false;
      append_operation(out, r, paths[i]);
    }
    out += '}';
  }
  out += R"(},"components":)";
  out += components;
  out += '}';
  return out;
}

}  // namespace tandem::gateway::pages
