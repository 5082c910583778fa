// The cluster as its head has it: the link, the roster, and where this machine's devices live.
#pragma once

#include "actors/doorkeeper.hpp"
#include "actors/node.hpp"
#include "actors/roster.hpp"
#include "gateway/nodes/actor_house.hpp"
#include "runtime/settings.hpp"
#include "runtime/store/leader_seat.hpp"
#include "runtime/transport/fabric.hpp"

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace tandem::gateway {

inline constexpr const char* head_name = "head";  // of its node

class cluster_head {
 public:
  // Opens the link where the settings want one, so that a taken port is known now.
  static result<std::unique_ptr<cluster_head>> open(const settings& configuration,
                                                    std::vector<device_spec> devices);

  // For the actor system of this process, once.
  std::unique_ptr<caf::actor_system_config> take_config() { return std::move(config_); }
  // The roster begins, and can be found by others. `seat`: null where no other head can lead.
  void start(actor_house& house, const caf::actor& keeper,
             const actors::coordinator_actor& coordinator,
             std::shared_ptr<actors::lease_board> events, const store::leader_seat* seat);
  // Nodes learn from now on whether they open doors of their own, and what these must know.
  void tell_doors(actor_house& house, std::function<actors::door_terms()> terms,
                  const actors::serve_coordinator_actor& serve_coordinator);
  const actors::roster_actor& roster() const { return roster_; }
  std::shared_ptr<actors::node_board> board() const { return board_; }

  // Of this machine's node actor; `changed` is called when a device is given up.
  actors::node_options node_options(std::function<void()> changed) const;
  // Why devices stay down, oldest first.
  std::vector<error> given_up() const;
  // Where others join; empty: nobody can.
  std::string address() const { return address_; }

 private:
  struct losses {
    std::mutex mutex;
    std::vector<error> why;
  };

  cluster_head(const settings& configuration, std::vector<device_spec> devices)
      : configuration_(configuration), devices_(std::move(devices)) {}

  const settings configuration_;
  const std::vector<device_spec> devices_;
  std::optional<transport::fabric_options> link_;
  std::unique_ptr<caf::actor_system_config> config_;
  actors::roster_actor roster_;
  std::shared_ptr<actors::node_board> board_ = std::make_shared<actors::node_board>();
  std::shared_ptr<losses> losses_ = std::make_shared<losses>();
  std::string link_address_;  // that workers dial
  std::string address_;
};

}  // namespace tandem::gateway
