#include "gateway/command/model_path.hpp"

#include "runtime/nearest_name.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <functional>

namespace tandem::gateway::command {
namespace {

namespace fs = std::filesystem;

constexpr int depth_max = 4;  // hub repositories lie at OWNER/NAME/FILE
constexpr std::size_t models_max = 10'000;
constexpr std::string_view quickstart_model = "SmolLM2-135M-Instruct.Q4_1";

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return std::tolower(c); });
  return out;
}

std::string last_part(std::string_view name) {
  return std::string(name.substr(name.rfind('/') + 1));
}

std::uint64_t folder_bytes(const fs::path& folder) {
  std::uint64_t bytes = 0;
  std::error_code failed;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, failed)) {
    const std::uint64_t size = entry.file_size(failed);
    if (!failed) bytes += size;
  }
  return bytes;
}

// Errors of single entries are passed over: a folder that may not be read holds nothing for us.
void collect(const fs::path& folder, const std::string& prefix, int depth,
             std::vector<local_model>& found) {
  std::error_code failed;
  if (fs::exists(folder / "config.json", failed) && !prefix.empty()) {
    found.push_back({prefix.substr(0, prefix.size() - 1), folder, folder_bytes(folder)});
  }
  if (depth == depth_max) return;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, failed)) {
    if (found.size() >= models_max) return;
    const fs::path& path = entry.path();
    if (path.filename().string().starts_with('.')) continue;  // downloads under way
    if (entry.is_directory(failed)) {
      collect(path, prefix + path.filename().string() + "/", depth + 1, found);
    } else if (entry.is_regular_file(failed) && path.extension() == ".gguf") {
      found.push_back({prefix + path.stem().string(), path, entry.file_size(failed)});
    }
  }
}

std::string listed(const std::vector<const local_model*>& models) {
  std::vector<std::string_view> names;
  for (const local_model* model : models) names.push_back(model->name);
  constexpr std::size_t shown = 8;
  const std::size_t more = names.size() > shown ? names.size() - shown : 0;
  names.resize(names.size() - more);
  return fmt::format("{}{}", fmt::join(names, ", "),
                     more > 0 ? fmt::format(" and {} more", more) : std::string());
}

result<fs::path> the_default(const std::vector<local_model>& models, const fs::path& folder) {
  if (models.empty()) {
    return error{errc::not_found,
                 fmt::format("no model under {}: get one with `tandem pull REPO`, or give --model "
                             "PATH",
                             folder.string()),
                 "model.path"};
  }
  std::vector<const local_model*> all;
  for (const local_model& model : models) {
    if (models.size() == 1 || model.name == quickstart_model) return model.path;
    all.push_back(&model);
  }
  return error{errc::not_found,
               fmt::format("{} models under {}: give one of them with --model: {}", models.size(),
                           folder.string(), listed(all)),
               "model.path"};
}

error no_such_model(std::string_view wanted, const std::vector<local_model>& models,
                    const fs::path& folder) {
  std::vector<std::string> names;
  for (const local_model& model : models) {
    names.push_back(model.name);
    names.push_back(last_part(model.name));
  }
  const auto near = nearest_name(wanted, names);
  return {errc::not_found,
          fmt::format("no model \"{}\": neither a file or folder, nor a name under {}{}", wanted,
                      folder.string(),
                      near ? fmt::format("; did you mean {}?", *near)
                           : std::string("; `tandem models` lists them, `tandem pull` gets one")),
          "model.path"};
}

}  // namespace

std::vector<local_model> local_models(const fs::path& models_folder) {
  std::vector<local_model> found;
  collect(models_folder, "", 0, found);
  std::ranges::sort(found, {}, &local_model::name);
  return found;
}

result<fs::path> find_model(std::string_view wanted, const fs::path& models_folder) {
  std::error_code failed;
  if (!wanted.empty() && fs::exists(fs::path(wanted), failed)) return fs::path(wanted);
  const std::vector<local_model> models = local_models(models_folder);
  if (wanted.empty()) return the_default(models, models_folder);

  std::string name = lower(wanted);
  if (name.ends_with(".gguf")) name.resize(name.size() - 5);
  // From the strictest reading to the loosest; the first that fits anything decides.
  const auto whole = [&](const local_model& m) { return lower(m.name) == name; };
  const auto last = [&](const local_model& m) { return lower(last_part(m.name)) == name; };
  const auto beginning = [&](const local_model& m) {
    return lower(m.name).starts_with(name) || lower(last_part(m.name)).starts_with(name);
  };
  for (const std::function<bool(const local_model&)>& fits :
       {std::function<bool(const local_model&)>(whole), {last}, {beginning}}) {
    std::vector<const local_model*> fitting;
    for (const local_model& model : models) {
      if (fits(model)) fitting.push_back(&model);
    }
    if (fitting.size() == 1) return fitting.front()->path;
    if (fitting.size() > 1) {
      return error{errc::conflict,
                   fmt::format("\"{}\" fits {} models: write one of {}", wanted, fitting.size(),
                               listed(fitting)),
                   "model.path"};
    }
  }
  return no_such_model(wanted, models, models_folder);
}

}  // namespace tandem::gateway::command
