#include "tests/sim/cluster.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::sim {
namespace {

// What an actor knows, by the actor itself; null: it is gone.
template <class Pointer, class Handle>
decltype(&Pointer()->state) state_of(const Handle& who) {
  const auto strong = caf::actor_cast<caf::strong_actor_ptr>(who);
  if (!strong) return nullptr;
  auto* self = dynamic_cast<Pointer>(caf::actor_cast<caf::abstract_actor*>(strong));
  return self ? &self->state : nullptr;
}

}  // namespace

cluster::cluster(const knobs& how, timeline& time, std::shared_ptr<ground> on,
                 std::shared_ptr<memory_store> store)
    : how_(how), time_(time), on_(std::move(on)), store_(std::move(store)) {
  start_head();
}

void cluster::start_head() {
  auto& system = time_.system();
  actors::coordinator_options lending;
  lending.book = store_->leases();
  lending.board = leases_;
  lending.policy.min_serve_devices = 1;
  auto first = system.spawn(actors::coordinator, lending);
  keeper_ = time_.house(system.spawn(
      actors::keeper, actors::keeper_options{.coordinator = lending, .restarts_max = 1000}, first));
  actors::serve_options serving;
  serving.model = "fake";
  serving.max_queued = 100'000;
  serving.load.max_sequences = 16;
  serving.return_deadline = std::chrono::minutes(5);
  serve_ = time_.house(system.spawn(actors::serve_coordinator, serving, first));
  gateway_ = time_.house(system.spawn(actors::gateway, serve_, board_, first));
  start_machines();
  auto context = std::make_shared<actors::train_context>();
  context->store = store_;
  context->base_name = "fake";
  context->own_threads = false;
  context->devices_apart = how_.devices_apart;
  context->make_clerk = [on = on_](caf::actor_system& in, const auto&) {
    return in.spawn(sim_clerk, on);
  };
  desk_ = time_.house(system.spawn(
      actors::train_desk, std::shared_ptr<const actors::train_context>(context), first, serve_));
  for (const auto& who :
       {caf::actor_cast<caf::actor>(serve_), caf::actor_cast<caf::actor>(gateway_),
        caf::actor_cast<caf::actor>(desk_)})
    caf::anon_send(keeper_, actors::keep_told{who});
}

void cluster::start_machines() {
  const int count = std::min(how_.nodes, how_.devices);
  for (int n = 0; n < count; ++n) {
    auto& made = machines_.emplace_back();
    for (int i = n; i < how_.devices; i += count)
      made.devices.push_back(fmt::format("sim:{:02}", i));
    if (n > 0) made.connection = std::make_unique<wire>(time_.system());
    start_node(made);
  }
}

void cluster::start_node(machine& on) {
  actors::node_options options;
  for (const auto& name : on.devices) options.devices.push_back({name, {0}, sim_device::capacity});
  options.own_threads = false;
  options.restarts_max = 100'000;
  options.make = [this](const device_spec& spec) {
    test::fake_device_script script;
    script.pieces = 2;
    script.kv_blocks = 96;
    script.training.pieces = 2;
    return std::make_unique<sim_device>(spec.name, on_, script);
  };
  on.node = time_.system().spawn(actors::node, options, actors::coordinator_actor());
  time_.house(on.node);
  tell_keeper(on);
}

void cluster::tell_keeper(machine& on) {
  const auto node = on.connection ? on.connection->over(on.node) : on.node;
  caf::anon_send(keeper_, actors::keep_told{caf::actor_cast<caf::actor>(node), true});
}

bool cluster::ready() const {
  const auto report = board_->newest();
  return report && std::any_of(report->lanes.begin(), report->lanes.end(),
                               [](const auto& lane) { return lane.ready; });
}

actors::coordinator_actor cluster::coordinator_now() const {
  return state_of<caf::stateful_actor<actors::keeper_state>*>(keeper_)->coordinator;
}

// The actors by what they say of themselves.
std::map<std::string, caf::actor> cluster::gpus() const {
  std::map<std::string, caf::actor> found;
  for (const auto& one : machines_) found.merge(gpus_of(one));
  return found;
}

std::map<std::string, caf::actor> cluster::gpus_of(const machine& on) {
  std::map<std::string, caf::actor> found;
  if (const auto* state =
          state_of<actors::node_actor::stateful_pointer<actors::node_state>>(on.node))
    for (const auto& [name, device] : state->devices)
      if (device.actor) found[name] = caf::actor_cast<caf::actor>(device.actor);
  return found;
}

void cluster::cut(machine& there) {
  there.connected = false;
  there.connection->cut();
}

int cluster::lose(machine& there) {
  cut(there);
  const auto devices = gpus_of(there);
  for (const auto& [name, device] : devices) caf::anon_send_exit(device, caf::exit_reason::kill);
  caf::anon_send_exit(std::exchange(there.node, nullptr), caf::exit_reason::kill);
  return static_cast<int>(devices.size());
}

void cluster::join_again(machine& there) {
  if (std::exchange(there.connected, true)) return;
  if (!there.node) return start_node(there);
  tell_keeper(there);
}

}  // namespace tandem::sim
