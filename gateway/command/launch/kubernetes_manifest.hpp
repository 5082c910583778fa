// What `tandem launch --kubernetes` prints: the objects of a cluster of pods, as YAML.
#pragma once

#include "runtime/result.hpp"
#include "runtime/settings.hpp"

#include <string>
#include <vector>

namespace tandem::gateway::command {

struct kubernetes_wish {
  std::string name = "tandem";           // of the objects
  std::string image = "tandem:latest";   // with this build's `tandem` in its PATH
  std::string model;                     // OWNER/NAME[:FILE] of the hub, or a path in the image
  int nodes = 2;                         // the head among them
  int cores = 2;                         // of each
  std::string memory = "4Gi";            // of each
  std::string storage = "20Gi";          // of each $TANDEM_HOME
  std::vector<std::string> assignments;  // "section.key=value", of every node
};

// Refused: a name, quantity or model that Kubernetes or `tandem` would not take.
result<std::string> kubernetes_manifest(const kubernetes_wish& wanted, const settings& given);

}  // namespace tandem::gateway::command
