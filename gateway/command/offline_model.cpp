#include "gateway/command/offline_model.hpp"

#include "runtime/formats/gguf.hpp"

#include <fmt/format.h>

#include <fstream>
#include <optional>

namespace tandem::gateway::command {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t text_bytes_max = 16U << 20;

error at_path(const fs::path& path, const error& why) {
  if (why.detail.find(path.string()) != std::string::npos) return why;
  return {why.code, fmt::format("{}: {}", path.string(), why.detail), why.param};
}

// The .gguf file that stands for `path`: itself, or the only one in a folder without
// Hugging Face's files.
std::optional<fs::path> gguf_in(const fs::path& path) {
  if (path.extension() == ".gguf") return path;
  std::error_code failed;
  if (!fs::is_directory(path, failed) || fs::exists(path / "config.json", failed)) return {};
  std::optional<fs::path> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(path, failed)) {
    if (entry.path().extension() != ".gguf") continue;
    if (found) return std::nullopt;
    found = entry.path();
  }
  return found;
}

result<std::string> template_of_folder(const fs::path& folder) {
  std::error_code failed;
  if (fs::exists(folder / "chat_template.jinja", failed)) {
    return read_text_file(folder / "chat_template.jinja");
  }
  const auto json = read_text_file(folder / "tokenizer_config.json");
  if (!json) return json.error();
  const auto config = text::value::from_json(*json);
  if (!config) return at_path(folder / "tokenizer_config.json", config.error());
  const text::value* found = config->find("chat_template");
  if (found && found->if_string()) return *found->if_string();
  if (found && found->if_array()) {
    for (const text::value& named : *found->if_array()) {
      const text::value* name = named.find("name");
      const text::value* source = named.find("template");
      const bool is_default = name && name->if_string() && *name->if_string() == "default";
      if (is_default && source && source->if_string()) return *source->if_string();
    }
  }
  return error{errc::not_found, fmt::format("{} has no chat template", folder.string()), {}};
}

}  // namespace

result<std::string> read_text_file(const fs::path& path) {
  std::error_code failed;
  const std::uintmax_t bytes = fs::file_size(path, failed);
  if (failed) {
    return error{errc::not_found, fmt::format("{}: {}", path.string(), failed.message()), {}};
  }
  if (bytes > text_bytes_max) {
    return error{
        errc::too_large,
        fmt::format("{}: {} bytes, at most {} are read", path.string(), bytes, text_bytes_max),
        {}};
  }
  std::string text(bytes, '\0');
  std::ifstream in(path, std::ios::binary);
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!in) return error{errc::io, fmt::format("{}: cannot be read", path.string()), {}};
  return text;
}

result<std::shared_ptr<const text::tokenizer>> load_tokenizer(const fs::path& path) {
  using loaded = result<std::shared_ptr<const text::tokenizer>>;
  const auto load = [&]() -> loaded {
    if (const auto gguf = gguf_in(path)) {
      const auto file = formats::gguf_file::open(*gguf);
      if (!file) return file.error();
      return text::tokenizer::from_gguf(*file);
    }
    std::error_code failed;
    if (fs::is_directory(path, failed)) return text::tokenizer::from_folder(path);
    const auto json = read_text_file(path);
    if (!json) return json.error();
    return text::tokenizer::from_json(*json);
  };
  loaded tokenizer = load();
  if (!tokenizer) return at_path(path, tokenizer.error());
  return tokenizer;
}

result<std::string> load_chat_template(const fs::path& path) {
  const auto gguf = gguf_in(path);
  if (!gguf) return template_of_folder(path);
  const auto file = formats::gguf_file::open(*gguf);
  if (!file) return at_path(*gguf, file.error());
  const auto source = file->string("tokenizer.chat_template");
  if (!source) {
    return error{errc::not_found, fmt::format("{} has no chat template", gguf->string()), {}};
  }
  return std::string(*source);
}

}  // namespace tandem::gateway::command
