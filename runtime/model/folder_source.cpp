// A model in a Hugging Face folder: config.json, safetensors, and the small files beside them.
#include "runtime/formats/safetensors.hpp"
#include "runtime/model/fp8_files.hpp"
#include "runtime/model/model_sources.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <utility>

namespace tandem::model {

namespace {

constexpr std::uint64_t max_config_bytes = 4 << 20;
constexpr std::uint64_t max_template_bytes = 4 << 20;
constexpr std::uint64_t max_tokenizer_config_bytes = 64 << 20;

// Picture models carry their text model under a prefix of their own.
std::string text_model_name(std::string_view name) {
  constexpr std::string_view older = "language_model.";
  constexpr std::string_view newer = "model.language_model.";
  if (name.starts_with(older)) return std::string(name.substr(older.size()));
  if (name.starts_with(newer)) return "model." + std::string(name.substr(newer.size()));
  return std::string(name);
}

bool is_vision(std::string_view name) {
  if (name.starts_with("model.")) name.remove_prefix(6);
  return name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector.");
}

// chat_template of a JSON file: a text, or a list of named ones. Read on demand, because these
// files hold numbers that fit no integer (model_max_length is 10^30 where there is no limit).
std::optional<std::string> template_in(const std::string& json) {
  simdjson::ondemand::parser parser;
  const simdjson::padded_string padded(json);
  simdjson::ondemand::document document;
  simdjson::ondemand::value value;
  if (parser.iterate(padded).get(document) != simdjson::SUCCESS ||
      document["chat_template"].get(value) != simdjson::SUCCESS)
    return std::nullopt;
  std::string_view source;
  if (value.get(source) == simdjson::SUCCESS) return std::string(source);
  simdjson::ondemand::array named;
  if (value.get(named) != simdjson::SUCCESS) return std::nullopt;
  for (auto entry : named) {
    simdjson::ondemand::object object;
    std::string_view name;
    if (entry.get(object) != simdjson::SUCCESS ||
        object.find_field_unordered("name").get(name) != simdjson::SUCCESS)
      return std::nullopt;
    const bool is_default = name == "default";
    if (object.find_field_unordered("template").get(source) != simdjson::SUCCESS)
      return std::nullopt;
    if (is_default) return std::string(source);
  }
  return std::nullopt;
}

class folder_source final : public tensor_source {
 public:
  folder_source(std::filesystem::path folder, model_config config, generation_defaults defaults,
                std::vector<formats::safetensors_file> files)
      : folder_(std::move(folder)), files_(std::move(files)) {
    config_ = std::move(config);
    defaults_ = std::move(defaults);
    for (const auto id : defaults_.eos_ids)
      if (std::find(config_.eos_ids.begin(), config_.eos_ids.end(), id) == config_.eos_ids.end())
        config_.eos_ids.push_back(id);
    const auto normal = folder_.lexically_normal();
    name_ = (normal.has_filename() ? normal : normal.parent_path()).filename().string();
    tensors_.names = hugging_face_names(config_);
    const bool pictures = config_.family == "gemma3" || config_.family == "mistral";
    const bool tied = config_.tied_head;
    tensors_.ignorable = [pictures, tied](std::string_view tensor) {
      return tensor.find(".rotary_emb.") != std::string_view::npos ||
             (tied && tensor == "lm_head.weight") || (pictures && is_vision(tensor)) ||
             is_unused_fp8_scale(tensor);
    };
    for (const auto& file : files_) {
      file_bytes_ += file.file_bytes();
      for (const auto& tensor : file.tensors())
        tensors_.tensors.emplace(
            pictures ? text_model_name(tensor.name) : tensor.name,
            stored_tensor{
                tensor.name, tensor.shape, tensor.format, tensor.bytes, &file.map(), {}, {}});
    }
  }
  result<void> attach_scales(const std::optional<fp8_scheme>& scheme) {
    return attach_fp8_scales(tensors_, scheme);
  }

  std::optional<std::string> chat_template() const override {
    if (auto source = read_text(folder_ / "chat_template.jinja", max_template_bytes))
      return std::move(*source);
    for (const auto* name : {"tokenizer_config.json", "chat_template.json"})
      if (const auto json = read_text(folder_ / name, max_tokenizer_config_bytes))
        if (auto source = template_in(*json)) return source;
    return std::nullopt;
  }
  std::optional<std::filesystem::path> tokenizer_path() const override {
    std::error_code ignored;
    if (!std::filesystem::exists(folder_ / "tokenizer.json", ignored)) return std::nullopt;
    return folder_;
  }
  result<load_forecast> forecast(const kernels::backend& device, load_format format,
                                 tensor_rank place) const override {
    if (auto good = has_weights_for(format); !good) return good.error();
    return tensor_source::forecast(device, format, place);
  }
  result<std::shared_ptr<const weights>> load(kernels::backend& device, memory::ledger& book,
                                              load_format format,
                                              const std::function<void(double)>& progress,
                                              tensor_rank place) const override {
    if (auto good = has_weights_for(format); !good) return good.error();
    return tensor_source::load(device, book, format, progress, place);
  }

 private:
  result<void> has_weights_for(load_format format) const {
    if (!files_.empty() || format == load_format::dummy) return {};
    return error{errc::not_found,
                 fmt::format("{}: no model.safetensors and no model.safetensors.index.json; "
                             "model.format = \"dummy\" makes random weights from the config",
                             folder_.string()),
                 {}};
  }

  std::filesystem::path folder_;
  std::vector<formats::safetensors_file> files_;
};

error in_folder(const std::filesystem::path& folder, error why) {
  why.detail = folder.string() + ": " + why.detail;
  return why;
}

}  // namespace

result<std::string> read_text(const std::filesystem::path& path, std::uint64_t most) {
  auto map = formats::mapped_file::open(path);
  if (!map) return map.error();
  const auto bytes = map->bytes();
  if (bytes.size() > most)
    return error{errc::too_large,
                 fmt::format("{} has {} bytes, {} are the most", path.string(), bytes.size(), most),
                 {}};
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

result<std::shared_ptr<const model_source>> open_folder_source(
    const std::filesystem::path& folder) {
  const auto json = read_text(folder / "config.json", max_config_bytes);
  if (!json) return json.error();
  auto config = config_from_json(*json);
  if (!config) return in_folder(folder, config.error());
  const auto scheme = fp8_scheme_from_json(*json);
  if (!scheme) return in_folder(folder, scheme.error());

  generation_defaults defaults;
  std::error_code ignored;
  if (std::filesystem::exists(folder / "generation_config.json", ignored)) {
    const auto text = read_text(folder / "generation_config.json", max_config_bytes);
    if (!text) return text.error();
    auto read = generation_defaults_from_json(*text);
    if (!read) return in_folder(folder, read.error());
    defaults = std::move(*read);
  }

  std::vector<formats::safetensors_file> files;
  const bool any = std::filesystem::exists(folder / "model.safetensors", ignored) ||
                   std::filesystem::exists(folder / "model.safetensors.index.json", ignored);
  if (any) {
    auto opened = formats::open_safetensors_folder(folder);
    if (!opened) return opened.error();
    files = std::move(*opened);
  }
  auto source = std::make_shared<folder_source>(folder, std::move(*config), std::move(defaults),
                                                std::move(files));
  if (auto attached = source->attach_scales(*scheme); !attached)
    return in_folder(folder, attached.error());
  return std::shared_ptr<const model_source>(std::move(source));
}

}  // namespace tandem::model
