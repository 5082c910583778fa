// What this binary was made of.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tandem::gateway::command {

struct build_facts {
  std::string version;  // of tandem
  std::string commit;   // git; "unknown" outside a checkout
  std::string compiler;
  std::string build_type;
};
build_facts this_build();

// Name and version of every library linked in, as it answers itself where it can.
std::vector<std::pair<std::string, std::string>> linked_versions();

}  // namespace tandem::gateway::command
