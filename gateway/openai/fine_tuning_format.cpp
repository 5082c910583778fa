#include "gateway/openai/fine_tuning_format.hpp"

#include "gateway/json_writer.hpp"
#include "runtime/text/value.hpp"
#include "runtime/train/job_options.hpp"

namespace tandem::gateway::openai {

namespace {

void append_name(std::string& out, std::string_view name) {
  out += ",\"";
  out += name;
  out += "\":";
}

void append_text(std::string& out, std::string_view name, std::string_view text) {
  append_name(out, name);
  append_json_string(out, text);
}

void append_text_or_null(std::string& out, std::string_view name, std::string_view text) {
  if (!text.empty()) return append_text(out, name, text);
  append_name(out, name);
  out += "null";
}

void append_integer(std::string& out, std::string_view name, std::int64_t number) {
  append_name(out, name);
  append_number(out, number);
}

void append_integer_or_null(std::string& out, std::string_view name, std::int64_t number) {
  if (number != 0) return append_integer(out, name, number);
  append_name(out, name);
  out += "null";
}

// As settled; before that as asked, "auto" where nothing was.
std::string shown_hyperparameters(const store::job_record& job) {
  if (const auto settled = text::value::from_json(job.settings_json);
      settled && !settled->is_null())
    if (const auto settings = train::settings_from(*settled))
      return train::shown_hyperparameters(*settings).to_json();
  text::value shown;
  const auto asked = text::value::from_json(job.hyperparameters_json);
  for (const char* name : {"n_epochs", "batch_size", "learning_rate_multiplier"}) {
    const text::value* given = asked ? asked->find(name) : nullptr;
    shown.set(name, given != nullptr && !given->is_null() ? *given : text::value("auto"));
  }
  return shown.to_json();
}

void append_error(std::string& out, const store::job_record& job) {
  append_name(out, "error");
  if (job.error_message.empty() && job.error_code.empty()) {
    out += "null";
    return;
  }
  out += R"({"code":)";
  append_json_string(out, job.error_code);
  append_text(out, "message", job.error_message);
  append_text_or_null(out, "param", job.error_param);
  out += '}';
}

// Ours: the settings (as asked until they are settled) and how far it is.
void append_own(std::string& out, const store::job_record& job) {
  const auto settled = text::value::from_json(job.settings_json);
  const auto asked = text::value::from_json(job.own_json);
  text::value own = settled && !settled->is_null() ? *settled
                    : asked && !asked->is_null()   ? *asked
                                                   : text::value(text::value::object{});
  own.set("step", job.step);
  own.set("step_count", job.step_count == 0 ? text::value() : text::value(job.step_count));
  own.set("trained_tokens", job.trained_tokens);
  append_name(out, "tandem");
  out += own.to_json();
}

}  // namespace

void append_job(std::string& out, const store::job_record& job) {
  out += R"({"object":"fine_tuning.job")";
  append_text(out, "id", job.id);
  append_text(out, "model", job.model);
  append_integer(out, "created_at", job.created_at);
  append_integer_or_null(out, "finished_at", job.finished_at);
  append_text_or_null(out, "fine_tuned_model", job.fine_tuned_model);
  append_text(out, "organization_id", "tandem");
  append_name(out, "result_files");
  out += '[';
  for (std::size_t i = 0; i < job.result_files.size(); ++i) {
    if (i > 0) out += ',';
    append_json_string(out, job.result_files[i]);
  }
  out += ']';
  append_text(out, "status", store::name_of(job.status));
  append_text(out, "training_file", job.training_file);
  append_text_or_null(out, "validation_file", job.validation_file);
  const std::string hyperparameters = shown_hyperparameters(job);
  append_name(out, "hyperparameters");
  out += hyperparameters;
  append_name(out, "method");
  out += R"({"type":"supervised","supervised":{"hyperparameters":)" + hyperparameters + "}}";
  // Published: null while it runs; then what it was.
  append_integer_or_null(out, "trained_tokens",
                         store::is_final(job.status) ? job.trained_tokens : 0);
  append_error(out, job);
  append_text_or_null(out, "user_provided_suffix", job.suffix);
  append_integer(out, "seed", job.seed);
  append_integer_or_null(out, "estimated_finish", job.estimated_finish);
  append_name(out, "integrations");
  out += job.integrations_json == "null" ? "[]" : job.integrations_json;
  append_name(out, "metadata");
  out += job.metadata_json;
  append_own(out, job);
  out += '}';
}

void append_job_event(std::string& out, const store::event_record& event) {
  out += R"({"object":"fine_tuning.job.event")";
  append_text(out, "id", event.id);
  append_integer(out, "created_at", event.created_at);
  append_text(out, "level", event.level);
  append_text(out, "message", event.message);
  append_text(out, "type", event.type);
  append_name(out, "data");
  out += event.data_json;
  out += '}';
}

void append_job_checkpoint(std::string& out, const store::checkpoint_record& checkpoint) {
  out += R"({"object":"fine_tuning.job.checkpoint")";
  append_text(out, "id", checkpoint.id);
  append_integer(out, "created_at", checkpoint.created_at);
  append_text(out, "fine_tuned_model_checkpoint", checkpoint.model);
  append_text(out, "fine_tuning_job_id", checkpoint.job);
  append_integer(out, "step_number", checkpoint.step);
  append_name(out, "metrics");
  out += checkpoint.metrics_json;
  out += '}';
}

}  // namespace tandem::gateway::openai
