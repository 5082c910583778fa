// The coordinator: keeps the book of who holds which device, asks the policy, and moves devices
// between serving and training. A lease is written before anybody hears of it, and a device is told
// before its holders are.
#pragma once

#include "actors/lease_board.hpp"
#include "actors/messages.hpp"
#include "runtime/lease/lease_store.hpp"
#include "runtime/lease/mover.hpp"

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace tandem::actors {

struct coordinator_options {
  lease::policy_settings policy;
  std::shared_ptr<lease::lease_store> book;  // null: a restart begins with nothing
  std::shared_ptr<lease_board> board;        // null: nobody looks
  std::chrono::milliseconds look_period{100};
  std::chrono::milliseconds retry_pause{1000};  // after a move that was refused
  // After a restart: until then those who held a device may say that they still do; and a device of
  // the book that has not come is lost.
  std::chrono::milliseconds return_period{2000};
  std::chrono::milliseconds lost_after{10'000};
  // A job that lies on a device that is to leave has so long to move, at the end of its step.
  std::chrono::milliseconds job_moves_within{60'000};
};

struct coordinator_state {
  using time_point = caf::actor_clock::time_point;

  struct member {
    gpu_actor device;
    caf::actor_addr node;  // who started it
    serve::device_facts facts;
    bool met = false;    // it has answered a lease of ours
    bool ready = false;  // who serves has said that it has the model

    // What it is wanted as, and why; the mover brings it there.
    lease::role wanted = lease::role::idle;
    std::string cause;
    std::string why;
    lease::numbers given;
    time_point decided{};
    lease::stage stage = lease::stage::still;
    bool unsure = false;
    time_point retry_at{};
    std::string refused_why;  // the last refusal, told once

    // What holders were told: the tenure they know of; 0: none.
    lease::epoch told_serve = 0;
    lease::epoch told_train = 0;
    // After a restart: what the book says it holds, until the device has said so too.
    std::optional<lease::lease> expected;

    lease::epoch moved_at = 0;  // of the last move, and
    time_point move_decided{};  // when it was decided
    time_point changed{};       // of its role
    std::int64_t changed_unix_ms = 0;
    time_point given_to_training{};
    std::uint64_t moves = 0;

    int running = 0;
    int queued = 0;
    std::int64_t busy_ns = 0;
    time_point busy_at{};
    double busy = 0.0;
  };
  struct job_state {
    std::string id;
    int priority = 0;
    train_coordinator_actor to;
    std::set<std::string> homes;  // where it is open; empty: not yet
    std::uint64_t bytes_each = 0;
    job_progress progress;
  };
  struct asked {
    std::string device;
    caf::typed_response_promise<lease::lease> answer;
  };

  // A node that is to leave: asks back its devices, and answers once all of them are idle.
  struct retirement {
    std::string node;
    std::vector<std::string> devices;
    caf::typed_response_promise<caf::unit_t> answer;
    time_point began{};
  };

  coordinator_options options;
  lease::policy_settings policy;
  lease::lease_book book;
  std::map<std::string, member> members;
  std::string serve_holder;                   // who asked for devices, and
  serve_coordinator_actor serve_coordinator;  // where to find it
  job_state job;                              // without an id: none
  job_progress last_progress;                 // for the report, when the job has left

  // Orders by hand. Those of `unsaved` are written, and their senders answered, with the next look:
  // however many came, the last one counts.
  std::map<std::string, lease::role> pins;
  std::map<std::string, lease::role> saved_pins;
  std::set<std::string> unsaved;
  std::vector<asked> answers;
  std::map<std::string, std::string> leaving;  // devices, with the node that leaves
  std::vector<retirement> retirements;
  std::set<std::string> unexplained;  // devices that were lost before their processes' end was told

  lease::service_view service;
  time_point load_at{};
  struct spell {
    bool lasts = false;
    time_point since{};
  };
  spell calm;
  spell safe;
  int regrets = 0;
  time_point regretted{};

  // After a restart.
  bool book_unread = false;  // its store does not answer yet: until then nothing is lent
  time_point read_again_at{};
  std::map<std::string, lease::lease> awaited;  // in the book, and not come yet
  time_point began{};
  bool took_over = false;

  bool poked = false;      // a look at what is due is on its way
  bool think_due = false;  // the policy is to be asked
  time_point thought{};    // when it was asked last
  std::string cause;       // why, when it is not the load
  bool report_due = false;
  bool report_stale = false;  // only numbers have changed
  time_point reported{};
  bool ticking = false;
  time_point tick_at{};
  std::uint64_t moves = 0;
  std::uint64_t refusals = 0;

  static inline const char* name = "coordinator";
};

coordinator_actor::behavior_type coordinator(
    coordinator_actor::stateful_pointer<coordinator_state> self, coordinator_options options);

}  // namespace tandem::actors
