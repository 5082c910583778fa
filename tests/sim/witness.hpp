// The witness: reads every order to a device before the device does, keeps its own account of
// whose turn it is there, and says when an order ran whose turn was over. It knows the rule of
// epochs from the protocol page and nothing of the guard that it watches.
#pragma once

#include "tests/sim/devices.hpp"
#include "tests/sim/memory_store.hpp"
#include "tests/support/actor_world.hpp"

#include <fmt/format.h>

#include <memory>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <unordered_map>
#include <utility>

namespace tandem::sim {

class witness {
 public:
  // `epochs_unchecked`: broken on purpose. While a device reads an order, its guard holds a tenure
  // of just that order's epoch, so that every order of work gets through.
  witness(caf::scheduler::test_coordinator& scheduler, std::shared_ptr<ground> on,
          std::shared_ptr<const memory_database> database, bool epochs_unchecked)
      : scheduler_(scheduler),
        on_(std::move(on)),
        database_(std::move(database)),
        epochs_unchecked_(epochs_unchecked) {}

  // The next job of the scheduler: one message of one actor.
  bool run_once() {
    auto* gpu = gpu_of(scheduler_.jobs.front());
    auto* mail = gpu ? gpu->peek_at_next_mailbox_element() : nullptr;
    if (!mail || mail->mid.is_response()) return scheduler_.try_run_once();
    const auto& what = mail->content();
    if (what.match_elements<actors::run_step>())
      return run_order(*gpu, what.get_as<actors::run_step>(0).at, &lease::lease::serve_since,
                       "serving");
    if (what.match_elements<actors::run_training>())
      return run_order(*gpu, what.get_as<actors::run_training>(0).at, &lease::lease::train_since,
                       "training");
    if (what.match_elements<actors::take_lease>())
      hear_lease(told_[gpu->id()], what.get_as<actors::take_lease>(0).now);
    return scheduler_.try_run_once();
  }

  std::uint64_t moves() const { return moves_; }  // of devices that had another role before

 private:
  using gpu_pointer = actors::gpu_actor::stateful_pointer<actors::gpu_state>;
  using gpu_type = std::remove_pointer_t<gpu_pointer>;

  // Every message comes by here, so: by one comparison.
  static gpu_pointer gpu_of(caf::resumable* job) {
    return typeid(*job) == typeid(gpu_type) ? dynamic_cast<gpu_pointer>(job) : nullptr;
  }

  bool run_order(gpu_type& gpu, lease::epoch given, lease::epoch lease::lease::*since,
                 const char* what) {
    const auto& told = told_[gpu.id()];
    const auto tenure = told.*since;
    const bool stale = tenure == 0 || given != tenure;
    const auto begun = on_->begun;
    const bool ran =
        stale && epochs_unchecked_ ? run_unchecked(gpu, given, since) : scheduler_.try_run_once();
    if (stale && on_->begun != begun)
      on_->violated(fmt::format("{} ran an order of {} of epoch {} in epoch {}", told.device, what,
                                given, tenure));
    return ran;
  }

  bool run_unchecked(gpu_type& gpu, lease::epoch given, lease::epoch lease::lease::*since) {
    const caf::strong_actor_ptr alive{gpu.ctrl()};
    const auto guard = gpu.state.guard;
    auto passes = guard.now();
    ++passes.at;
    passes.*since = given;
    const bool taken = gpu.state.guard.take(passes).has_value();
    const bool ran = scheduler_.try_run_once();
    if (taken && !gpu.getf(caf::abstract_actor::is_terminated_flag)) gpu.state.guard = guard;
    return ran;
  }

  void hear_lease(lease::lease& told, const lease::lease& now) {
    if (!given_out_.emplace(now.at, now.device).second)
      on_->violated(fmt::format("epoch {} was given out to {} and to {}", now.at,
                                given_out_.at(now.at), now.device));
    if (now.at <= told.at) return;
    hear_lead(now);
    moves_ += told.at != 0 && told.held_as != now.held_as;
    told = now;
  }

  // A device of one name, in all its lives, is lent by one head after the other.
  void hear_lead(const lease::lease& now) {
    const auto written = database_->lent_in.find(now.at);
    if (written == database_->lent_in.end()) return;
    auto& newest = lent_in_[now.device];
    if (written->second < newest)
      on_->violated(fmt::format("{} took a lease of lead {} after one of lead {}", now.device,
                                written->second, newest));
    newest = std::max(newest, written->second);
  }

  caf::scheduler::test_coordinator& scheduler_;
  std::shared_ptr<ground> on_;
  std::shared_ptr<const memory_database> database_;
  std::unordered_map<std::string, std::int64_t> lent_in_;  // by device
  bool epochs_unchecked_;
  std::unordered_map<caf::actor_id, lease::lease> told_;  // by this life of a device
  std::unordered_map<lease::epoch, std::string> given_out_;
  std::uint64_t moves_ = 0;
};

}  // namespace tandem::sim
