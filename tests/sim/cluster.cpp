#include "tests/sim/cluster.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

constexpr auto answer_within = 3s;
constexpr auto first_pause = 20ms;
constexpr auto pause_max = 500ms;

bool is_alive(const actors::node_actor& who) {
  return state_of<actors::node_actor::stateful_pointer<actors::node_state>>(who) != nullptr;
}

}  // namespace

// Heads come first. Each has a machine, and those that stand by have as many devices as the first.
cluster::cluster(std::uint64_t seed, const knobs& how, timeline& time, std::shared_ptr<ground> on,
                 std::shared_ptr<memory_database> database)
    : time_(time), on_(std::move(on)), chance_(fold(seed, 19)) {
  const int heads = std::max(1, how.heads);
  const int nodes = std::min(how.nodes, how.devices);
  for (int m = 0; m < nodes + heads - 1; ++m) {
    auto& made = machines_.emplace_back();
    made.name = fmt::format("m{}", m);
    const int share = m < heads ? 0 : m - heads + 1;
    for (int i = share; i < how.devices; i += nodes)
      made.devices.push_back(fmt::format("{}/{:02}", made.name, i));
    devices_.insert(devices_.end(), made.devices.begin(), made.devices.end());
    made.connection = std::make_unique<wire>(time_.system());
  }
  for (int h = 0; h < heads; ++h) {
    auto& home = machines_[static_cast<std::size_t>(h)];
    home.hosts = &heads_.emplace_back(
        home.name, home.devices, fold(seed, 20 + static_cast<std::uint64_t>(h)),
        head::surroundings{time_, on_, database, how, [this](head& which) { kill(which, true); },
                           [this](const auto& job) { job_changed_(job); }});
    time_.after(std::chrono::milliseconds(h), [&home] { home.hosts->start(); });
  }
  for (auto& one : machines_)
    if (!one.hosts) join(one);
}

void cluster::listen(std::function<void(const head&)> head_gone,
                     std::function<void(const store::job_record&)> job_changed) {
  head_gone_ = std::move(head_gone);
  job_changed_ = std::move(job_changed);
}

std::map<std::string, caf::actor> cluster::gpus() const {
  std::map<std::string, caf::actor> found;
  for (const auto& one : machines_) found.merge(gpus_of(one.node));
  for (const auto& one : heads_) found.merge(gpus_of(one.node()));
  return found;
}

std::vector<head*> cluster::open_heads() {
  std::vector<head*> open;
  for (auto& one : heads_)
    if (one.takes_requests()) open.push_back(&one);
  return open;
}

// --- heads
// --------------------------------------------------------------------------------------

void cluster::kill(head& which, bool heard) {
  if (!which.is_up()) return;
  head_losses_ += which.has_led();
  which.kill(heard);
  for (auto& one : machines_)
    if (one.at == &which) leave(one, false);
  head_gone_(which);
  for (auto& one : machines_)
    if (one.hosts == &which)
      time_.after(std::chrono::milliseconds(50 + chance_.below(3'000)),
                  [this, &one] { start_again(one); });
}

void cluster::start_again(machine& home) {
  const bool others = std::ranges::any_of(heads_, [](const auto& one) { return one.is_up(); });
  if (!others || chance_.chance(0.6)) return home.hosts->start();
  join(home);
  time_.after(std::chrono::milliseconds(500 + chance_.below(3'000)),
              [this, &home] { drain(home); });
}

// An ordinary machine is to end once its devices are idle.
void cluster::drain(machine& there) {
  there.leaves = true;
  if (there.is_in)
    caf::anon_send(there.at->roster(),
                   actors::submit_drain{there.name, [](const result<void>&) {}});
}

void cluster::stand_by(machine& home) {
  lose(home);
  home.hosts->start();
}

// --- machines
// --------------------------------------------------------------------------------------

void cluster::join(machine& there) {
  there.joins = true;
  there.pause = {};
  look_for_head(there);
}

void cluster::look_later(machine& there) {
  if (there.leaves) return stand_by(there);
  there.pause = std::clamp<std::chrono::milliseconds>(there.pause * 2, first_pause, pause_max);
  time_.after(there.pause, [this, &there, number = ++there.tries] {
    if (there.tries == number) look_for_head(there);
  });
}

// Not before what it had at the last head has ended.
void cluster::look_for_head(machine& there) {
  if (is_alive(there.ending)) return look_later(there);
  there.ending = nullptr;
  std::vector<head*> found;
  for (auto& one : heads_)
    if (one.has_led() && !there.cut_from.contains(&one)) found.push_back(&one);
  ask_next(there, std::move(found));
}

// One head after the other: two that let it in at once would both lend its devices.
void cluster::ask_next(machine& there, std::vector<head*> rest) {
  std::erase_if(rest, [](const head* one) { return !one->has_led(); });
  if (rest.empty()) return look_later(there);
  auto& asked = *rest.front();
  rest.erase(rest.begin());
  if (there.node && there.kept != asked.lead()) {
    end_node(there);
    return look_later(there);
  }
  there.at = &asked;
  there.connection->cut();
  const auto number = ++there.tries;
  actors::join_cluster order;
  order.node = there.name;
  order.devices = there.devices;
  order.store = there.lead == 0 ? "" : "sim";
  order.epoch = there.lead;
  const auto refused = [this, &there, number, rest](const caf::error&) {
    if (there.tries != number) return;
    leave(there, there.kept != 0);
    if (there.joins) ask_next(there, rest);
  };
  there.member = time_.house(time_.system().spawn(
      [this, &there, number, refused, order, roster = there.connection->over(asked.roster())](
          caf::event_based_actor* self) mutable -> caf::behavior {
        order.member = caf::actor_cast<caf::actor>(self);
        self->request(roster, answer_within, std::move(order))
            .then(
                [this, &there, number](const actors::cluster_joined& answer) {
                  if (there.tries == number) came_in(there, answer);
                },
                refused);
        return {[](const actors::heads_changed&) {},
                [this, &there, number](const actors::let_go&) {
                  if (there.tries == number) stand_by(there);
                }};
      }));
}

void cluster::came_in(machine& there, const actors::cluster_joined& answer) {
  there.is_in = true;
  there.pause = {};
  there.lead = answer.epoch;
  there.kept = 0;
  if (!there.node) there.node = start_node(time_, on_, there.devices);
  const auto node = there.connection->over(there.node);
  if (there.leaves) drain(there);
  caf::anon_send(there.at->keeper(), actors::keep_told{caf::actor_cast<caf::actor>(node), true});
}

// Its connection is gone.
void cluster::leave(machine& there, bool devices_live_on) {
  there.connection->cut();
  if (there.member)
    caf::anon_send_exit(std::exchange(there.member, nullptr), caf::exit_reason::user_shutdown);
  if (std::exchange(there.is_in, false)) there.kept = devices_live_on ? there.lead : 0;
  if (!devices_live_on) end_node(there);
  there.at = nullptr;
  look_later(there);
}

void cluster::end_node(machine& there) {
  if (!there.node) return;
  there.ending = std::exchange(there.node, nullptr);
  caf::anon_send_exit(there.ending, caf::exit_reason::user_shutdown);
}

void cluster::cut(machine& there, head& from, bool devices_live_on) {
  there.cut_from.insert(&from);
  if (there.at == &from) leave(there, devices_live_on);
}

void cluster::heal(machine& there, head& from) { there.cut_from.erase(&from); }

int cluster::lose(machine& there) {
  there.joins = there.leaves = false;
  ++there.tries;
  there.connection->cut();
  if (there.member)
    caf::anon_send_exit(std::exchange(there.member, nullptr), caf::exit_reason::kill);
  there.is_in = false;
  there.kept = 0;
  there.at = nullptr;
  there.lead = 0;
  const auto lost = static_cast<int>(gpus_of(there.node).size());
  if (there.node) kill_node(there.node);
  if (there.ending) kill_node(there.ending);
  return lost;
}

}  // namespace tandem::sim
