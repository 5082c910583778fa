// Devices of a job's group that do not reach each other though both are up: the job goes on without
// one of them, and takes it in again once it gets through.
#include "actors/fault.hpp"
#include "actors/link.hpp"
#include "actors/reach.hpp"
#include "actors/train_flow.hpp"
#include "runtime/log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

namespace tandem::actors {
namespace {

constexpr auto probe_every = std::chrono::seconds(5);
constexpr auto probe_within = std::chrono::seconds(5);
constexpr auto find_within = std::chrono::seconds(2);

std::string address_of(train_self self, const gpu_actor& device) {
  auto address = process_address(caf::actor_cast<caf::strong_actor_ptr>(device));
  return address.empty() ? link_of(self->system()).address() : address;
}

bool is_up(const std::vector<shared_device>& up, const gpu_actor& device) {
  return std::ranges::any_of(up, [&](const auto& one) { return one.device == device; });
}

void try_again_later(train_self self) {
  self->state.probing = false;
  if (!self->state.out_of_reach.empty()) self->delayed_send(self, probe_every, homes_changed{});
}

// Every process of the group was asked: `silent` are the addresses that one of them misses.
void all_tried(train_self self, const std::vector<std::string>& silent) {
  auto& state = self->state;
  for (auto it = state.out_of_reach.begin(); it != state.out_of_reach.end();) {
    if (std::ranges::find(silent, address_of(self, it->second.device)) != silent.end()) {
      ++it;
      continue;
    }
    tell(self, "info", fmt::format("Device {} can be reached by the others again", it->first));
    it = state.out_of_reach.erase(it);
    state.homes_changed = true;
  }
  try_again_later(self);
}

}  // namespace

void transfer_failed(train_self self, int rank, const error& why) {
  auto& state = self->state;
  const auto peer = rank_out_of_reach(why);
  if (!peer || *peer >= std::ssize(state.members) || *peer == rank) return start_over(self, why);
  const auto& one = state.members[static_cast<std::size_t>(rank)];
  const auto& other = state.members[static_cast<std::size_t>(*peer)];
  // Whether it is the way between them, or one of them died, shows when the job borrows devices.
  state.suspected.push_back({one.now.device, one.device, other.now.device, other.device});
  start_over(self, {errc::unavailable,
                    fmt::format("device {} does not reach device {}: {}", one.now.device,
                                other.now.device, why.detail),
                    ""});
}

void judge_suspects(train_self self, const std::vector<shared_device>& up) {
  auto& state = self->state;
  std::erase_if(state.out_of_reach, [&](const auto& one) { return !is_up(up, one.second.device); });
  for (const auto& pair : std::exchange(state.suspected, {})) {
    if (!is_up(up, pair.one) || !is_up(up, pair.other)) continue;
    const auto name = left_out_of({{pair.one_name, pair.one.node() == self->node()},
                                   {pair.other_name, pair.other.node() == self->node()}});
    const bool first = name == pair.one_name;
    const train_state::torn_off torn{first ? pair.one : pair.other, first ? pair.other : pair.one};
    if (!state.out_of_reach.emplace(name, torn).second) continue;
    const auto what = fmt::format(
        "Device {} is left out: device {} does not reach it, though both "
        "are up; it is tried again every {} s",
        name, first ? pair.other_name : pair.one_name, probe_every.count());
    log_warning("job {}: {}", state.options.job, what);
    tell(self, "warn", what);
  }
  if (!state.out_of_reach.empty() && !state.probing)
    self->delayed_send(self, probe_every, homes_changed{});
}

void look_who_is_in_reach(train_self self) {
  auto& state = self->state;
  if (state.probing || state.out_of_reach.empty() || !self->system().has_network_manager()) return;
  std::vector<std::string> wanted;
  std::vector<std::string> askers;
  const auto asks = [&](const gpu_actor& device) {
    auto address = address_of(self, device);
    if (std::ranges::find(askers, address) == askers.end()) askers.push_back(std::move(address));
  };
  for (const auto& member : state.members) asks(member.device);
  for (const auto& [name, torn] : state.out_of_reach) {
    wanted.push_back(address_of(self, torn.device));
    asks(torn.missed_by);
  }
  state.probing = true;
  struct round {
    std::size_t missing = 0;
    std::vector<std::string> silent;
  };
  auto now = std::make_shared<round>();
  now->missing = askers.size();
  const auto answered = [=](const std::vector<std::string>& silent) {
    now->silent.insert(now->silent.end(), silent.begin(), silent.end());
    if (--now->missing == 0) all_tried(self, now->silent);
  };
  for (const auto& asker : askers)
    link_of(self->system())
        .resolve<reach_actor>(self, asker, reach_name, find_within)
        .then(
            [=](const caf::strong_actor_ptr& found) {
              self->request(caf::actor_cast<reach_actor>(found), probe_within, try_to_reach{wanted})
                  .then([=](const reach_tried& tried) { answered(tried.silent); },
                        [=](const caf::error&) { answered(wanted); });
            },
            // It has left, or is about to: it says nothing of others.
            [=](const caf::error&) { answered({}); });
}

}  // namespace tandem::actors
