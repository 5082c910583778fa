// A model in one GGUF file.
#include "runtime/formats/gguf.hpp"
#include "runtime/model/model_sources.hpp"

#include <utility>

namespace tandem::model {

namespace {

class gguf_source final : public tensor_source {
 public:
  gguf_source(std::filesystem::path path, formats::gguf_file file, model_config config)
      : path_(std::move(path)), file_(std::move(file)) {
    config_ = std::move(config);
    name_ = path_.stem().string();
    file_bytes_ = file_.file_bytes();
    tensors_.names = gguf_names(config_, file_.string("general.architecture").value_or(""));
    tensors_.ignorable = [](std::string_view tensor) {
      // The config took these in.
      return tensor == "rope_freqs.weight" || tensor == "rope_factors_long.weight" ||
             tensor == "rope_factors_short.weight";
    };
    for (const auto& tensor : file_.tensors())
      tensors_.tensors.emplace(
          tensor.name,
          stored_tensor{
              tensor.name, tensor.shape, tensor.format, tensor.bytes, &file_.map(), {}, {}});
  }

  std::optional<std::string> chat_template() const override {
    const auto source = file_.string("tokenizer.chat_template");
    if (!source) return std::nullopt;
    return std::string(*source);
  }
  std::optional<std::filesystem::path> tokenizer_path() const override {
    if (!file_.has("tokenizer.ggml.tokens")) return std::nullopt;
    return path_;
  }

 private:
  std::filesystem::path path_;
  formats::gguf_file file_;
};

}  // namespace

result<std::shared_ptr<const model_source>> open_gguf_source(const std::filesystem::path& path) {
  auto file = formats::gguf_file::open(path);
  if (!file) return file.error();
  auto config = config_from_gguf(*file);
  if (!config) {
    error why = config.error();
    why.detail = path.string() + ": " + why.detail;
    return why;
  }
  return std::shared_ptr<const model_source>(
      std::make_shared<gguf_source>(path, std::move(*file), std::move(*config)));
}

}  // namespace tandem::model
