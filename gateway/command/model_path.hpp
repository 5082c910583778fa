// From what a person calls a model to its file or folder: a path, or a name under
// $TANDEM_HOME/models.
#pragma once

#include "runtime/result.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::gateway::command {

struct local_model {
  std::string name;  // path under the models folder, without ".gguf"
  std::filesystem::path path;
  std::uint64_t bytes = 0;
  bool operator==(const local_model&) const = default;
};

// .gguf files and folders with a config.json, sorted by name. A missing folder holds none.
std::vector<local_model> local_models(const std::filesystem::path& models_folder);

// `wanted`: an existing path; else a name under the folder, whole or its last part, in any case;
// else a beginning that only one model has. Empty: the only model there, or the quickstart model.
// A refusal names what is there.
result<std::filesystem::path> find_model(std::string_view wanted,
                                         const std::filesystem::path& models_folder);

}  // namespace tandem::gateway::command
