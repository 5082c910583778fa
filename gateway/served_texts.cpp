#include "gateway/served_texts.hpp"

#include "runtime/formats/gguf.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

namespace tandem::gateway {

result<std::string> chat_template_of(const model_settings& settings) {
  if (settings.chat_template.empty()) return std::string();
  std::ifstream file(settings.chat_template, std::ios::binary);
  if (!file)
    return error{errc::not_found, fmt::format("cannot read '{}'", settings.chat_template),
                 "model.chat_template"};
  return std::string(std::istreambuf_iterator<char>(file), {});
}

result<model_texts> texts_of(const model::model_source& source, const std::string& chat_template) {
  model_texts texts;
  const auto path = source.tokenizer_path();
  if (!path) {
    texts.no_chat_reason = "the model has no tokenizer: send token ids to /v1/completions";
    return texts;
  }
  std::shared_ptr<const text::tokenizer> tokenizer;
  if (std::filesystem::is_directory(*path)) {
    auto read = text::tokenizer::from_folder(*path);
    if (!read) return read.error();
    tokenizer = *std::move(read);
  } else {
    auto file = formats::gguf_file::open(*path);
    if (!file) return file.error();
    auto read = text::tokenizer::from_gguf(*file);
    if (!read) return read.error();
    tokenizer = *std::move(read);
  }
  texts.tokenizer = std::move(tokenizer);

  auto written = source.chat_template();
  if (!chat_template.empty()) written = chat_template;
  if (!written) {
    texts.no_chat_reason =
        "the model ships no chat template: use /v1/completions, or set model.chat_template";
    return texts;
  }
  auto compiled = text::chat_template::compile(*written);
  if (!compiled)
    return error{errc::bad_file,
                 "the model's chat template does not compile: " + compiled.error().detail +
                     "; set model.chat_template to a corrected file",
                 "model.chat_template"};
  texts.chat_template = std::make_shared<const text::chat_template>(*std::move(compiled));
  return texts;
}

std::size_t ready_lanes(const actors::serve_report& report) {
  return static_cast<std::size_t>(std::count_if(report.lanes.begin(), report.lanes.end(),
                                                [](const auto& l) { return l.ready; }));
}

std::shared_ptr<const served_model> describe(const model::model_source& source, std::string id,
                                             std::int64_t created, model_texts texts,
                                             const actors::serve_report& report) {
  auto model = std::make_shared<served_model>();
  const auto& lane = *std::find_if(report.lanes.begin(), report.lanes.end(),
                                   [](const auto& l) { return l.ready; });
  model->id = std::move(id);
  model->family = source.config().family;
  model->precision = lane.model.precision;
  model->created = created;
  model->context_length = lane.model.context_length;
  model->vocabulary_size = source.config().vocabulary_size;
  model->parameter_count = lane.model.parameter_count;
  model->weights_version = lane.model.weights_version;
  model->eos_ids = source.config().eos_ids;
  model->defaults = source.defaults();
  for (auto end : model->defaults.eos_ids)
    if (std::find(model->eos_ids.begin(), model->eos_ids.end(), end) == model->eos_ids.end())
      model->eos_ids.push_back(end);
  model->tokenizer = std::move(texts.tokenizer);
  model->chat_template = std::move(texts.chat_template);
  model->no_chat_reason = std::move(texts.no_chat_reason);
  for (const auto& l : report.lanes) model->devices.push_back(l.held.device);
  return model;
}

std::string url_of(const server_settings& server, int port) {
  auto host = server.host;
  if (host == "0.0.0.0" || host == "::") host = "127.0.0.1";
  if (host.find(':') != std::string::npos) host = "[" + host + "]";
  return fmt::format("{}://{}:{}", server.tls_cert.empty() ? "http" : "https", host, port);
}

}  // namespace tandem::gateway
