// All actors of a process in one thread on virtual time: a test says how far to run.
#pragma once

#include "actors/coordinator.hpp"
#include "actors/gateway.hpp"
#include "actors/gpu.hpp"
#include "actors/node.hpp"
#include "actors/serve_coordinator.hpp"
#include "tests/support/fake_device.hpp"

#include <caf/scheduler/test_coordinator.hpp>

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace tandem::test {

class actor_world {
 public:
  actor_world() : system_(configure(config_)) {}
  ~actor_world() {
    for (auto it = housed_.rbegin(); it != housed_.rend(); ++it)
      caf::anon_send_exit(*it, caf::exit_reason::user_shutdown);
    scheduler().run();
    housed_.clear();
  }

  caf::actor_system& system() { return system_; }
  caf::scheduler::test_coordinator& scheduler() {
    return dynamic_cast<caf::scheduler::test_coordinator&>(system_.scheduler());
  }
  template <class Handle>
  Handle house(Handle actor) {
    housed_.push_back(caf::actor_cast<caf::actor>(actor));
    return actor;
  }

  // Every message that is there now, and those they cause; no time passes.
  void settle() { scheduler().run(); }
  // Lets time pass in small pieces, all messages between them.
  void pass(std::chrono::milliseconds time) {
    using namespace std::chrono_literals;
    for (auto left = time; left > 0ms; left -= 10ms) {
      scheduler().advance_time(10ms);
      scheduler().run();
    }
  }
  // As a process does that is stopped: what is due comes late, and at once.
  void stand_still(std::chrono::milliseconds time) {
    scheduler().advance_time(time);
    scheduler().run();
  }

 private:
  static caf::actor_system_config& configure(caf::actor_system_config& config) {
    config.set("scheduler.policy", caf::atom("testing"));
    return config;
  }

  caf::actor_system_config config_;
  caf::actor_system system_;
  std::vector<caf::actor> housed_;
};

// A serving platform of fake devices, and what its clients got.
class serving_world : public actor_world {
 public:
  struct reply {
    std::string text;
    std::vector<serve::token_id> tokens;
    serve::finish_reason finish = serve::finish_reason::none;
    std::optional<error> failure;
    int finishes = 0;
    std::set<std::uint64_t> versions;  // of the weights its deltas named
  };

  serving_world(std::vector<std::string> devices, fake_device_script script,
                actors::serve_options options = {}) {
    board = std::make_shared<actors::gateway_board>();
    options.model = "fake";
    leases = std::make_shared<actors::lease_board>();
    actors::coordinator_options lending;
    lending.board = leases;
    coordinator = house(system().spawn(actors::coordinator, std::move(lending)));
    serve_coordinator =
        house(system().spawn(actors::serve_coordinator, std::move(options), coordinator));
    gateway = house(system().spawn(actors::gateway, serve_coordinator, board, coordinator));
    actors::node_options node_options;
    for (const auto& name : devices) node_options.devices.push_back({name, {0}, 1 << 20});
    node_options.own_threads = false;
    node_options.make = [this, script](const device_spec& spec) {
      ++devices_made;
      auto own = script;
      if (devices_made > devices_that_die) {
        own.dies_at_step = own.sticks_at_step = 0;
        own.training.dies_at_order = 0;
      }
      return std::make_unique<fake_device>(spec.name, own);
    };
    node = house(system().spawn(actors::node, node_options, coordinator));
    settle();
  }

  void ask(serve::generation_request request) {
    ++board->requests_inside;
    caf::anon_send(gateway, actors::submit{std::move(request), [this](serve::generation_delta d) {
                                             auto& r = replies[{d.id, d.choice}];
                                             r.text += d.text;
                                             r.tokens.insert(r.tokens.end(), d.tokens.begin(),
                                                             d.tokens.end());
                                             r.versions.insert(d.weights_version);
                                             if (d.finish == serve::finish_reason::none) return;
                                             r.finish = d.finish;
                                             r.failure = d.failure;
                                             ++r.finishes;
                                           }});
  }

  std::shared_ptr<actors::gateway_board> board;
  std::shared_ptr<actors::lease_board> leases;
  actors::coordinator_actor coordinator;
  actors::serve_coordinator_actor serve_coordinator;
  actors::gateway_actor gateway;
  actors::node_actor node;
  std::map<std::pair<serve::request_id, int>, reply> replies;
  int devices_made = 0;
  int devices_that_die = 1;  // only the first so many devices follow dies_at_step
};

inline serve::generation_request request_of(serve::request_id id,
                                            std::vector<serve::token_id> prompt, int max_tokens) {
  serve::generation_request request;
  request.id = id;
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0;
  request.stops.max_tokens = max_tokens;
  return request;
}

// The text of a request that runs alone, from the fake's own rule; version 0 is the base.
inline std::vector<serve::token_id> expected_tokens(std::vector<serve::token_id> history, int count,
                                                    int vocabulary = 100,
                                                    std::uint64_t version = 0) {
  std::vector<serve::token_id> tokens;
  for (int i = 0; i < count; ++i) {
    tokens.push_back(next_token(history, vocabulary, version));
    history.push_back(tokens.back());
  }
  return tokens;
}

}  // namespace tandem::test
