// From what a person calls a trained model to its checkpoint, offline: an `ft:` name, a job's id,
// either with `:ckpt-step-N`, or a folder.
#pragma once

#include "runtime/result.hpp"

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::gateway::command {

struct trained_model {
  std::filesystem::path checkpoint;
  std::vector<std::string> broken;  // newer checkpoints that were passed over, and why
};

// `jobs_folder` holds JOB/checkpoints/step-N. The newest whole checkpoint, unless one is named. A
// refusal names what is there.
result<trained_model> find_trained(std::string_view wanted,
                                   const std::filesystem::path& jobs_folder);

}  // namespace tandem::gateway::command
