#include "tests/sim/head.hpp"

#include <algorithm>
#include <utility>

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

// Shorter than in life, as loads of seconds are.
constexpr auto stand_by_pause = 100ms;
constexpr auto look_every = 500ms;
constexpr auto silent_max = 1500ms;
constexpr auto ready_pause = 10ms;

// Before anything else that it has mail of.
void kill(const caf::strong_actor_ptr& who) {
  if (who)
    who->enqueue(nullptr, caf::make_message_id(caf::message_priority::high),
                 caf::make_message(
                     caf::exit_msg{caf::actor_cast<caf::actor_addr>(who), caf::exit_reason::kill}),
                 nullptr);
}
template <class Handle>
void kill(const Handle& who) {
  kill(caf::actor_cast<caf::strong_actor_ptr>(who));
}

}  // namespace

actors::node_actor start_node(timeline& time, const std::shared_ptr<ground>& on,
                              const std::vector<std::string>& devices) {
  actors::node_options options;
  for (const auto& name : devices) options.devices.push_back({name, {0}, sim_device::capacity});
  options.own_threads = false;
  options.restarts_max = 100'000;
  options.make = [on](const device_spec& spec) {
    test::fake_device_script script;
    script.pieces = 2;
    script.kv_blocks = 96;
    script.training.pieces = 2;
    return std::make_unique<sim_device>(spec.name, on, script);
  };
  return time.house(
      time.system().spawn(actors::node, std::move(options), actors::coordinator_actor()));
}

// The actors by what they say of themselves.
std::map<std::string, caf::actor> gpus_of(const actors::node_actor& node) {
  std::map<std::string, caf::actor> found;
  if (const auto* state = state_of<actors::node_actor::stateful_pointer<actors::node_state>>(node))
    for (const auto& [name, device] : state->devices)
      if (device.actor) found[name] = caf::actor_cast<caf::actor>(device.actor);
  return found;
}

void kill_node(actors::node_actor& node) {
  for (const auto& [name, device] : gpus_of(node)) {
    if (const auto* gpu = state_of<actors::gpu_actor::stateful_pointer<actors::gpu_state>>(device))
      kill(gpu->courier);
    kill(device);
  }
  kill(std::exchange(node, nullptr));
}

head::head(std::string name, std::vector<std::string> devices, std::uint64_t seed,
           surroundings around)
    : name_(std::move(name)),
      devices_(std::move(devices)),
      chance_(seed),
      around_(std::move(around)) {}

head::~head() {
  ++life_;
  if (store_) store_->unwatch(1);
  if (access_) access_->refused = nullptr;
}

void head::later(std::chrono::nanoseconds time, void (head::*what)()) {
  around_.time.after(time, [this, what, life = life_] {
    if (life == life_) (this->*what)();
  });
}

// --- the seat
// --------------------------------------------------------------------------------------

void head::start() {
  up_ = true;
  ++life_;
  session_ = ++around_.database->sessions;
  failures_ = 0;
  told_sure_ = true;
  access_ = std::make_shared<database_access>();
  access_->cut = access_->reads_cut = cut_;
  access_->sure = [this] { return sure(); };
  access_->refused = [this, life = life_] {
    if (life == life_) around_.ends(*this);
  };
  later(0ns, &head::stand_by);
}

bool head::sure() { return around_.time.now() - sure_at_ < silent_max; }

void head::cut_from_store(bool cut) {
  if (std::exchange(cut_, cut) == cut || !up_) return;
  access_->cut = access_->reads_cut = cut;
  if (cut) return;
  // One of its two connections is tried again a little later than the other.
  auto& later = chance_.chance(0.5) ? access_->cut : access_->reads_cut;
  later = true;
  around_.time.after(std::chrono::milliseconds(chance_.below(500)), [this, access = access_] {
    if (access == access_ && up_ && !cut_) access->cut = access->reads_cut = false;
  });
}

void head::lose_session() {
  if (around_.database->session == session_) around_.database->session = 0;
}

// The server ends a session of which it has heard nothing for so long, and its lock with it.
store::leader_look head::look() {
  store::leader_look seen;
  if (cut_) return seen;
  auto& database = *around_.database;
  const auto now = around_.time.now();
  if (database.session != 0 && now - database.heard >= silent_max) database.session = 0;
  if (database.session == 0) database.session = session_;
  if (database.session == session_) database.heard = now;
  seen.answered = true;
  seen.locked = database.session == session_;
  seen.epoch = database.lead;
  return seen;
}

void head::stand_by() {
  switch (store::next_step(0, look())) {
    case store::lead_step::take:
      return later(std::chrono::milliseconds(chance_.below(5)), &head::count_up);
    case store::lead_step::stand_by:
      failures_ = 0;
      return later(stand_by_pause, &head::stand_by);
    default:
      return later(store::pause_after(++failures_), &head::stand_by);
  }
}

void head::count_up() {
  if (cut_ || around_.database->session != session_) return stand_by();
  access_->lead = ++around_.database->lead;
  sure_at_ = around_.time.now();
  failures_ = 0;
  later(look_every, &head::keep);
  later(std::chrono::milliseconds(chance_.below(100)), &head::open);
}

void head::keep() {
  switch (store::next_step(access_->lead, look())) {
    case store::lead_step::lead:
      failures_ = 0;
      sure_at_ = around_.time.now();
      break;
    case store::lead_step::give_up:
      return around_.ends(*this);
    default:
      ++failures_;
  }
  if (roster_ && std::exchange(told_sure_, sure()) != sure())
    caf::anon_send(roster_, actors::heads_changed{sure(), {}});
  later(failures_ == 0 ? look_every : store::pause_after(failures_), &head::keep);
}

// --- what leads
// --------------------------------------------------------------------------------------

void head::open() {
  auto& time = around_.time;
  auto& system = time.system();
  store_ = std::make_shared<memory_store>(around_.database, access_);
  board_ = std::make_shared<actors::gateway_board>();
  leases_ = std::make_shared<actors::lease_board>();
  actors::coordinator_options lending;
  lending.book = store_->leases();
  lending.board = leases_;
  lending.policy.min_serve_devices = 1;
  first_ = system.spawn(actors::coordinator, lending);
  keeper_ = time.house(
      system.spawn(actors::keeper,
                   actors::keeper_options{.coordinator = lending, .restarts_max = 1000}, first_));
  actors::serve_options serving;
  serving.model = "fake";
  serving.max_queued = 100'000;
  serving.load.max_sequences = 16;
  serving.return_deadline = std::chrono::minutes(5);
  serve_ = time.house(system.spawn(actors::serve_coordinator, serving, first_));
  gateway_ = time.house(system.spawn(actors::gateway, serve_, board_, first_));
  actors::roster_options members;
  members.keeper = keeper_;
  members.events = leases_;
  members.store = "sim";
  members.epoch = access_->lead;
  members.head.node = name_;
  members.head.is_head = true;
  members.head.devices = devices_;
  roster_ = time.house(system.spawn(actors::roster, std::move(members), first_));
  node_ = start_node(time, around_.on, devices_);
  for (const auto& who :
       {caf::actor_cast<caf::actor>(serve_), caf::actor_cast<caf::actor>(gateway_),
        caf::actor_cast<caf::actor>(roster_)})
    caf::anon_send(keeper_, actors::keep_told{who});
  caf::anon_send(keeper_, actors::keep_told{caf::actor_cast<caf::actor>(node_), true});
  open_desk();
}

// As the platform does: nobody is let in before a device has the model.
void head::open_desk() {
  const auto report = board_->newest();
  if (!report || std::none_of(report->lanes.begin(), report->lanes.end(),
                              [](const auto& lane) { return lane.ready; }))
    return later(ready_pause, &head::open_desk);
  auto context = std::make_shared<actors::train_context>();
  context->store = store_;
  context->base_name = "fake";
  context->own_threads = false;
  context->devices_apart = around_.how.devices_apart;
  context->make_clerk = [on = around_.on, store = store_](caf::actor_system& in, const auto&) {
    return in.spawn(sim_clerk, on, store);
  };
  desk_ = around_.time.house(around_.time.system().spawn(
      actors::train_desk, std::shared_ptr<const actors::train_context>(context),
      coordinator_now() ? coordinator_now() : first_, serve_));
  caf::anon_send(keeper_, actors::keep_told{caf::actor_cast<caf::actor>(desk_), true});
  store_->watch([this, life = life_](const std::string& job) {
    if (life != life_) return;
    caf::anon_send(desk_, actors::job_changed{job});
    for (const auto& one : around_.database->jobs)
      if (one.id == job) return around_.job_changed(one);
  });
}

actors::coordinator_actor head::coordinator_now() const {
  const auto* keeper = state_of<caf::stateful_actor<actors::keeper_state>*>(keeper_);
  return keeper ? keeper->coordinator : actors::coordinator_actor();
}

void head::kill(bool heard) {
  up_ = false;
  ++life_;
  access_->cut = access_->reads_cut = true;
  access_->refused = nullptr;
  if (heard && !cut_ && around_.database->session == session_) around_.database->session = 0;
  if (store_) store_->unwatch(1);
  sim::kill(coordinator_now());
  if (const auto* desk =
          state_of<actors::train_desk_actor::stateful_pointer<actors::train_desk_state>>(desk_)) {
    if (const auto* job =
            state_of<actors::train_coordinator_actor::stateful_pointer<actors::train_state>>(
                desk->job))
      sim::kill(job->clerk);
    sim::kill(desk->job);
  }
  sim::kill(std::exchange(desk_, nullptr));
  sim::kill(std::exchange(keeper_, nullptr));
  sim::kill(std::exchange(serve_, nullptr));
  sim::kill(std::exchange(gateway_, nullptr));
  sim::kill(std::exchange(roster_, nullptr));
  if (node_) kill_node(node_);
}

}  // namespace tandem::sim
