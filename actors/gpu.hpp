// The GPU actor: the one owner of a device. Runs steps and training orders as programs of pieces
// and looks at its mailbox between two of them; the mailbox is the preemption point. A step always
// goes first: a piece of training runs only while no step is in flight. Which side may run at all
// is the lease's to say: a step whose tenure ends is given up, an order of training is kept.
#pragma once

#include "actors/borrower.hpp"
#include "actors/messages.hpp"
#include "runtime/paused_call.hpp"
#include "runtime/serve/device.hpp"

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace tandem::actors {

struct gpu_state {
  // The piece whose time is not over yet (device::piece_time).
  struct piece {
    bool of_step = false;
    bool last = false;
    bool void_now = false;  // what it was part of was given up meanwhile
  };

  // Something that takes long and is no step: a job is opened, a version is read. Begun in order,
  // one at a time, in pieces between steps; training waits meanwhile.
  struct errand {
    std::string job;                           // that is opened; else empty
    std::optional<serve::variant_id> version;  // that is read
    std::unique_ptr<paused_call> call;
    std::function<void()> done;                // answers with what came of it
    std::function<void(const error&)> refuse;  // it is given up: answers with why
  };

  std::unique_ptr<serve::device> device;
  std::deque<errand> errands;  // after the device: what is given up is unwound while that lives
  lease::lease_guard guard;
  caf::actor_addr lender;      // who sent the newest lease, and hears of first pieces
  bool serving_news = false;   // the tenure is new: its first piece is to be told
  bool training_news = false;  // likewise
  bool running = false;        // a step is in flight
  std::uint64_t step = 0;      // the number of the newest that began
  caf::typed_response_promise<serve::step_result> answer;
  // Sent ahead: begins when the one in flight is done and the mailbox was looked at.
  struct step_ahead {
    serve::step_plan plan;
    std::int64_t training_gap_ns = serve::any_gap_ns;
    caf::typed_response_promise<serve::step_result> answer;
  };
  std::optional<step_ahead> ahead;
  std::vector<serve::sampled_token> drawn;  // by the newest step that is done: slots and ids
  // An order of a job is in flight, at the same time as a step or not; it only goes on while the
  // device trains that job, and waits where it stands otherwise.
  bool training = false;
  std::string training_job;
  courier_actor courier;    // of the job that is open, where its group is apart
  std::string courier_job;  // that job
  caf::typed_response_promise<train::outcome> training_answer;
  // A step is to follow the last one at once, and a piece of training would hold it up for longer
  // than it may be: none begins before the step is there, or has not come after all.
  bool awaits_step = false;
  std::uint64_t gaps = 0;  // counts these waits
  std::int64_t training_gap_ns = serve::any_gap_ns;
  std::int64_t training_piece_ns = 0;  // the longest of late
  bool piece_due = false;              // next_piece is on its way to ourselves, at most once
  std::optional<piece> under_way;
  // Gets the files that orders of another machine name; null: they are here.
  borrower_actor borrower;
  std::multiset<serve::variant_id> versions_to_come;  // one an order, its files on the way
  std::string job_to_come;                            // likewise; empty: none
  std::uint64_t openings = 0;  // of jobs, those that were taken back included

  static inline const char* name = "gpu";
};

// Must be spawned detached where the device is real: its thread becomes the device's first.
gpu_actor::behavior_type gpu(gpu_actor::stateful_pointer<gpu_state> self,
                             std::unique_ptr<serve::device> device);
// The same on a machine that is not the head's.
gpu_actor::behavior_type gpu_elsewhere(gpu_actor::stateful_pointer<gpu_state> self,
                                       std::unique_ptr<serve::device> device,
                                       borrower_actor borrower);

}  // namespace tandem::actors
