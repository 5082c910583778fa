// The actors of one process, ended in order when this goes away.
#pragma once

#include "runtime/device_spec.hpp"

#include <caf/all.hpp>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace tandem::gateway {

class actor_house {
 public:
  // `config` may hold a link already; null: none.
  explicit actor_house(std::unique_ptr<caf::actor_system_config> config = nullptr)
      : config_(config ? std::move(config) : std::make_unique<caf::actor_system_config>()),
        system_(configure(*config_)) {}
  ~actor_house() {
    for (auto it = housed_.rbegin(); it != housed_.rend(); ++it)
      caf::anon_send_exit(*it, caf::exit_reason::user_shutdown);
    housed_.clear();
    system_.await_all_actors_done();
  }

  caf::actor_system& system() { return system_; }
  template <class Handle>
  Handle house(Handle actor) {
    housed_.push_back(caf::actor_cast<caf::actor>(actor));
    return actor;
  }
  const std::vector<caf::actor>& housed() const { return housed_; }

 private:
  static constexpr std::size_t threads_min = 2;

  static caf::actor_system_config& configure(caf::actor_system_config& config) {
    // Stealing workers poll in sleeps of 50 us: a hop then costs as much as a step.
    config.set("scheduler.policy", caf::atom("sharing"));
    config.set("scheduler.max-threads",
               std::max<std::size_t>(threads_min, this_machine().cores.size()));
    return config;
  }

  std::unique_ptr<caf::actor_system_config> config_;
  caf::actor_system system_;
  std::vector<caf::actor> housed_;
};

}  // namespace tandem::gateway
