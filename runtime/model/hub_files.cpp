#include "runtime/model/hub_files.hpp"

#include "simdjson.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>

namespace tandem::model {
namespace {

bool is_safe_component(std::string_view part) {
  return !part.empty() && part != "." && part != ".." &&
         std::none_of(part.begin(), part.end(), [](char c) {
           return static_cast<unsigned char>(c) < 0x20 || c == '\\' || c == '\x7f' || c == ':';
         });
}

bool is_safe_path(std::string_view path) {
  for (;;) {
    std::size_t slash = path.find('/');
    if (!is_safe_component(path.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

bool is_gguf(const hub_file& file) {
  std::string name = lower(file.name);
  std::size_t slash = name.rfind('/') + 1;  // npos + 1 is 0
  return name.ends_with(".gguf") && name.compare(slash, 6, "mmproj") != 0;
}

// "model-q4-00001-of-00003.gguf" is one of three parts of "model-q4".
std::string gguf_stem(std::string_view name) {
  std::string_view stem = name.substr(0, name.size() - 5);
  constexpr std::size_t part_size = 15;  // "-00001-of-00003"
  if (stem.size() > part_size) {
    std::string_view part = stem.substr(stem.size() - part_size);
    auto digits = [](std::string_view d) {
      return std::all_of(d.begin(), d.end(), [](char c) { return c >= '0' && c <= '9'; });
    };
    if (part[0] == '-' && part.substr(6, 4) == "-of-" && digits(part.substr(1, 5)) &&
        digits(part.substr(10)))
      stem.remove_suffix(part_size);
  }
  return std::string(stem);
}

// GGUF models by stem, each with its parts in order.
std::map<std::string, std::vector<hub_file>> gguf_models(const std::vector<hub_file>& all) {
  std::map<std::string, std::vector<hub_file>> models;
  for (const hub_file& file : all)
    if (is_gguf(file)) models[gguf_stem(file.name)].push_back(file);
  for (auto& [stem, parts] : models)
    std::sort(parts.begin(), parts.end(),
              [](const hub_file& a, const hub_file& b) { return a.name < b.name; });
  return models;
}

// "...-Q4_K_M" ends in the quant "q4_k_m"; "...-IQ4_K_M" does not.
bool ends_in_quant(std::string_view stem, std::string_view quant) {
  std::string name = lower(stem);
  std::string wanted = lower(quant);
  if (wanted.ends_with(".gguf")) wanted.resize(wanted.size() - 5);
  if (!name.ends_with(wanted)) return false;
  if (name.size() == wanted.size()) return true;
  char before = name[name.size() - wanted.size() - 1];
  return before == '-' || before == '.' || before == '_' || before == '/';
}

std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      std::size_t above = row[j + 1];
      row[j + 1] = std::min({above + 1, row[j] + 1, diagonal + (a[i] == b[j] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row.back();
}

std::string joined(const std::vector<std::string>& names, std::size_t count_max) {
  std::string out;
  for (std::size_t i = 0; i < std::min(names.size(), count_max); ++i)
    out += (i > 0 ? ", " : "") + names[i];
  if (names.size() > count_max)
    out += ", and " + std::to_string(names.size() - count_max) + " more";
  return out;
}

constexpr std::size_t names_shown = 12;

std::string nearest(const std::vector<hub_file>& all, const std::string& wanted) {
  constexpr std::size_t name_bytes_max = 256;  // the comparison is quadratic
  std::vector<std::pair<std::size_t, std::string>> ranked;
  for (const hub_file& file : all) {
    std::string name = lower(file.name).substr(0, name_bytes_max);
    ranked.emplace_back(distance(name, lower(wanted).substr(0, name_bytes_max)), file.name);
  }
  std::sort(ranked.begin(), ranked.end());
  std::vector<std::string> names;
  for (std::size_t i = 0; i < std::min<std::size_t>(ranked.size(), 3); ++i)
    names.push_back(ranked[i].second);
  return joined(names, names_shown);
}

std::vector<std::string> stems(const std::map<std::string, std::vector<hub_file>>& models) {
  std::vector<std::string> names;
  for (const auto& [stem, parts] : models) names.push_back(stem + ".gguf");
  return names;
}

result<std::vector<hub_file>> named_file(const std::vector<hub_file>& all,
                                         const hub_reference& reference) {
  auto models = gguf_models(all);
  for (const hub_file& file : all) {
    if (file.name != reference.file) continue;
    auto model = is_gguf(file) ? models.find(gguf_stem(file.name)) : models.end();
    return model == models.end() ? std::vector<hub_file>{file} : model->second;
  }
  std::map<std::string, std::vector<hub_file>> matching;
  for (const auto& [stem, parts] : models)
    if (ends_in_quant(stem, reference.file)) matching.emplace(stem, parts);
  if (matching.size() == 1) return matching.begin()->second;
  if (matching.empty())
    return error{errc::not_found,
                 reference.repository + " has no file " + reference.file + "; the nearest are " +
                     nearest(all, reference.file),
                 {}};
  return error{errc::bad_request,
               reference.file + " is " + std::to_string(matching.size()) + " files of " +
                   reference.repository + ": name one of " + joined(stems(matching), names_shown),
               {}};
}

bool belongs_to_folder(const std::string& name) {
  constexpr std::array<std::string_view, 13> wanted = {"config.json",
                                                       "generation_config.json",
                                                       "tokenizer.json",
                                                       "tokenizer_config.json",
                                                       "tokenizer.model",
                                                       "special_tokens_map.json",
                                                       "added_tokens.json",
                                                       "vocab.json",
                                                       "merges.txt",
                                                       "vocab.txt",
                                                       "model.safetensors.index.json",
                                                       "spiece.model",
                                                       "preprocessor_config.json"};
  return std::find(wanted.begin(), wanted.end(), name) != wanted.end() ||
         name.starts_with("chat_template.");
}

std::vector<hub_file> folder_files(const std::vector<hub_file>& all) {
  std::vector<hub_file> files;
  std::vector<hub_file> weights;
  bool has_model = std::any_of(all.begin(), all.end(), [](const hub_file& file) {
    return file.name.starts_with("model") && file.name.ends_with(".safetensors");
  });
  for (const hub_file& file : all) {
    if (file.name.find('/') != std::string::npos) continue;
    // Some repositories hold the weights twice: under transformers' names and under their own.
    if (file.name.ends_with(".safetensors") && (!has_model || file.name.starts_with("model")))
      weights.push_back(file);
    else if (belongs_to_folder(file.name))
      files.push_back(file);
  }
  if (weights.empty()) return {};
  files.insert(files.end(), weights.begin(), weights.end());
  return files;
}

result<std::vector<hub_file>> needed_files(const std::vector<hub_file>& all,
                                           const hub_reference& reference) {
  auto folder = folder_files(all);
  if (!folder.empty()) return folder;
  auto models = gguf_models(all);
  if (models.size() == 1) return models.begin()->second;
  for (const auto& [stem, parts] : models)
    if (ends_in_quant(stem, "Q4_K_M")) return parts;
  if (!models.empty())
    return error{errc::bad_request,
                 reference.repository + " has " + std::to_string(models.size()) +
                     " GGUF files and none is Q4_K_M: pull " + reference.repository +
                     ":FILE with one of " + joined(stems(models), names_shown),
                 {}};
  return error{errc::not_found,
               reference.repository + " has neither safetensors nor GGUF files among its " +
                   std::to_string(all.size()),
               {}};
}

}  // namespace

result<hub_reference> parse_reference(std::string_view what) {
  std::size_t colon = what.find(':');
  hub_reference reference{std::string(what.substr(0, colon)), {}};
  if (colon != std::string_view::npos) reference.file = std::string(what.substr(colon + 1));
  const std::string& repository = reference.repository;
  bool plain = std::all_of(repository.begin(), repository.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_' || c == '-' ||
           c == '/';
  });
  if (!plain || !is_safe_path(repository) ||
      std::count(repository.begin(), repository.end(), '/') > 1 ||
      repository.find("..") != std::string::npos)
    return error{
        errc::bad_request,
        "'" + std::string(what) + "' is no repository: pull wants ORG/NAME or ORG/NAME:FILE",
        {}};
  if (colon != std::string_view::npos && !is_safe_path(reference.file))
    return error{errc::bad_request, "'" + reference.file + "' is no file of a repository", {}};
  return reference;
}

result<std::vector<hub_file>> parse_listing(std::string_view json) {
  namespace dom = simdjson::dom;
  auto broken = [](std::string_view what) {
    return error{errc::bad_file, "the hub's list of files is broken: " + std::string(what), {}};
  };
  dom::parser parser;
  dom::element root;
  if (auto code = parser.parse(simdjson::padded_string(json)).get(root))
    return broken(simdjson::error_message(code));
  dom::array siblings;
  if (root["siblings"].get(siblings)) return broken("no \"siblings\"");
  std::vector<hub_file> files;
  for (dom::element sibling : siblings) {
    hub_file file;
    std::string_view text;
    if (sibling["rfilename"].get(text)) return broken("an entry without \"rfilename\"");
    file.name = std::string(text);
    std::uint64_t bytes = 0;
    if (!sibling["size"].get(bytes)) file.bytes = bytes;
    if (!sibling["lfs"]["sha256"].get(text)) file.sha256 = lower(text);
    if (!sibling["lfs"]["size"].get(bytes)) file.bytes = bytes;
    // A large file's blob is the pointer to it, not its bytes.
    if (file.sha256.empty() && !sibling["blobId"].get(text)) file.git_blob = lower(text);
    files.push_back(std::move(file));
  }
  return files;
}

result<std::vector<hub_file>> choose_files(const std::vector<hub_file>& all,
                                           const hub_reference& reference) {
  auto chosen = reference.file.empty() ? needed_files(all, reference) : named_file(all, reference);
  if (!chosen) return chosen;
  for (const hub_file& file : *chosen)
    if (!is_safe_path(file.name))
      return error{errc::bad_file,
                   "the hub names a file '" + file.name +
                       "', which is no path below the model's "
                       "folder: refused",
                   {}};
  return chosen;
}

}  // namespace tandem::model
