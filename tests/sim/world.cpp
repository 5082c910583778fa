#include "tests/sim/world.hpp"

#include "actors/keeper.hpp"
#include "actors/lease_board.hpp"
#include "actors/train_desk.hpp"
#include "runtime/train/step_planner.hpp"
#include "tests/sim/devices.hpp"
#include "tests/sim/memory_store.hpp"
#include "tests/sim/wire.hpp"
#include "tests/sim/witness.hpp"
#include "tests/support/actor_world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <tuple>

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;
using clock_time = caf::actor_clock::time_point;
using store::job_status;

// SplitMix64 (Steele, Lea & Flood 2014): one stream a purpose, so that a knob changes one of them.
class random_stream {
 public:
  explicit random_stream(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }
  std::uint64_t below(std::uint64_t n) { return next() % n; }
  double share() { return static_cast<double>(next() >> 11U) * 0x1p-53; }
  bool chance(double p) { return share() < p; }

 private:
  std::uint64_t state_;
};

constexpr std::uint64_t fold(std::uint64_t hash, std::uint64_t with) {
  hash = (hash ^ with) * 0x9e3779b97f4a7c15U;
  return hash ^ (hash >> 32U);
}

constexpr auto fault_period = 100ms;
constexpr double stall_chance = 0.004;  // a message
constexpr auto quiet_limit = 600s;      // virtual: everything must have ended by then
constexpr int answer_tokens = 12;

class simulation {
 public:
  simulation(std::uint64_t seed, const knobs& how)
      : how_(how),
        schedule_(fold(seed, 1)),
        load_(fold(seed, 2)),
        faults_(fold(seed, 3)),
        orders_(fold(seed, 4)),
        on_(std::make_shared<ground>()) {
    on_->serve_piece = how.serve_piece;
    on_->train_piece = how.train_piece;
    on_->memory_filled = how.memory_filled;
    on_->slots = std::clamp(static_cast<int>(std::bit_ceil(static_cast<unsigned>(how.devices))), 8,
                            static_cast<int>(test::fake_trainer_memory::count));
    on_->data = made_up_data(on_->slots);
    build();
  }
  ~simulation() {
    store_->unwatch(1);
    for (auto* who : stalled_) scheduler().jobs.push_back(who);
  }

  outcome run() {
    // As the platform does: nobody asks before a device has the model.
    while (!ready()) run_until(now() + 10ms);
    start_job();
    const auto end = now() + std::chrono::duration_cast<std::chrono::nanoseconds>(
                                 std::chrono::duration<double>(how_.seconds));
    ask_later();
    order_later();
    if (how_.faults) fault_later();
    run_until(end);
    calm_down();
    const auto limit = now() + quiet_limit;
    while (now() < limit && !all_ended()) run_until(now() + 250ms);
    judge();
    return result();
  }

 private:
  caf::scheduler::test_coordinator& scheduler() { return scheduler_; }
  clock_time now() { return scheduler().clock().now(); }

  // --- the cluster -----------------------------------------------------------------------------

  void build() {
    auto& system = world_.system();
    board_ = std::make_shared<actors::gateway_board>();
    leases_ = std::make_shared<actors::lease_board>();
    store_ = std::make_shared<memory_store>(how_.book_loses_writes, on_->store_silent);
    actors::coordinator_options lending;
    lending.book = store_->leases();
    lending.board = leases_;
    lending.policy.min_serve_devices = 1;
    auto first = system.spawn(actors::coordinator, lending);
    keeper_ = world_.house(
        system.spawn(actors::keeper,
                     actors::keeper_options{.coordinator = lending, .restarts_max = 1000}, first));
    actors::serve_options serving;
    serving.model = "fake";
    serving.max_queued = 100'000;
    serving.load.max_sequences = 16;
    serving.return_deadline = std::chrono::minutes(5);
    serve_ = world_.house(system.spawn(actors::serve_coordinator, serving, first));
    gateway_ = world_.house(system.spawn(actors::gateway, serve_, board_, first));
    start_machines();
    auto context = std::make_shared<actors::train_context>();
    context->store = store_;
    context->base_name = "fake";
    context->own_threads = false;
    context->devices_apart = how_.devices_apart;
    context->make_clerk = [on = on_](caf::actor_system& in, const auto&) {
      return in.spawn(sim_clerk, on);
    };
    desk_ = world_.house(system.spawn(
        actors::train_desk, std::shared_ptr<const actors::train_context>(context), first, serve_));
    store_->watch([this](const std::string& job) { hear_job(job); });
    for (const auto& who :
         {caf::actor_cast<caf::actor>(serve_), caf::actor_cast<caf::actor>(gateway_),
          caf::actor_cast<caf::actor>(desk_)})
      caf::anon_send(keeper_, actors::keep_told{who});
  }

  // A machine of the cluster. The head's own has no wire.
  struct machine {
    std::vector<std::string> devices;
    std::unique_ptr<wire> connection;
    actors::node_actor node;
    bool connected = true;
  };

  void start_machines() {
    const int count = std::min(how_.nodes, how_.devices);
    for (int n = 0; n < count; ++n) {
      auto& made = machines_.emplace_back();
      for (int i = n; i < how_.devices; i += count)
        made.devices.push_back(fmt::format("sim:{:02}", i));
      if (n > 0) made.connection = std::make_unique<wire>(world_.system());
      start_node(made);
    }
  }

  void start_node(machine& on) {
    actors::node_options options;
    for (const auto& name : on.devices)
      options.devices.push_back({name, {0}, sim_device::capacity});
    options.own_threads = false;
    options.restarts_max = 100'000;
    options.make = [this](const device_spec& spec) {
      test::fake_device_script script;
      script.pieces = 2;
      script.kv_blocks = 96;
      script.training.pieces = 2;
      return std::make_unique<sim_device>(spec.name, on_, script);
    };
    on.node = world_.system().spawn(actors::node, options, actors::coordinator_actor());
    world_.house(on.node);
    tell_keeper(on);
  }
  void tell_keeper(machine& on) {
    const auto node = on.connection ? on.connection->over(on.node) : on.node;
    caf::anon_send(keeper_, actors::keep_told{caf::actor_cast<caf::actor>(node), true});
  }

  // --- time and order ----------------------------------------------------------------------------

  // One message of a seeded actor; where nobody has one, time passes to the next thing due.
  bool step(clock_time end) {
    auto& jobs = scheduler().jobs;
    if (!jobs.empty()) {
      // Now and then everybody is slow: time passes though there is mail.
      if (schedule_.chance(0.002)) {
        pass(std::min(end, now() + std::chrono::microseconds(schedule_.below(20'000))));
        return true;
      }
      const auto index = schedule_.below(jobs.size());
      std::swap(jobs[0], jobs[index]);
      hash_ = fold(hash_, index);
      if (how_.faults && !calm_ && schedule_.chance(stall_chance)) {
        stall();
        return true;
      }
      ++messages_;
      return witness_.run_once();
    }
    auto next = end;
    const auto& due = scheduler().clock().schedule();
    if (!due.empty()) next = std::min(next, due.begin()->first);
    if (!events_.empty()) next = std::min(next, events_.begin()->first);
    if (next <= now() && next >= end) return false;
    pass(next);
    return now() < end || !jobs.empty();
  }
  // The thread of whoever is next gets no time for a while, and its mail gathers.
  void stall() {
    stalled_.push_back(scheduler().jobs.front());
    scheduler().jobs.pop_front();
    const auto most = schedule_.chance(0.05) ? 2'000'000 : schedule_.chance(0.2) ? 300'000 : 5'000;
    after(std::chrono::microseconds(schedule_.below(most)), [this, who = stalled_.back()] {
      std::erase(stalled_, who);
      scheduler().jobs.push_back(who);
    });
  }
  void pass(clock_time to) {
    if (to > now())
      scheduler().advance_time(to - now());
    else
      scheduler().clock().trigger_expired_timeouts();
    while (!events_.empty() && events_.begin()->first <= now()) {
      const auto what = events_.begin()->second;
      events_.erase(events_.begin());
      what();
    }
  }
  void run_until(clock_time end) {
    while (step(end)) {
    }
  }
  void at(clock_time when, std::function<void()> what) { events_.emplace(when, std::move(what)); }
  void after(std::chrono::nanoseconds time, std::function<void()> what) {
    at(now() + time, std::move(what));
  }
  std::chrono::nanoseconds exponential(double per_second) {
    const double seconds = -std::log(1.0 - load_.share()) / std::max(per_second, 1e-6);
    return std::chrono::nanoseconds(static_cast<std::int64_t>(seconds * 1e9) + 1);
  }

  bool ready() const {
    const auto report = board_->newest();
    return report && std::any_of(report->lanes.begin(), report->lanes.end(),
                                 [](const auto& lane) { return lane.ready; });
  }

  // --- load
  // ----------------------------------------------------------------------------------------

  void start_job() {
    store::job_record job;
    job.model = "fake";
    job.status = job_status::queued;
    job.suffix = "sim";
    jobs_.push_back(store_->add_job(job)->id);
  }
  // As long as there is load, the next one follows.
  void hear_job(const std::string& job) {
    caf::anon_send(desk_, actors::job_changed{job});
    if (!calm_ && is_final(store_->find_job(job)->status))
      after(0ns, [this] {
        if (!calm_) start_job();
      });
  }

  void ask_later() {
    const double rate =
        how_.requests_per_second > 0 ? how_.requests_per_second : 3.0 * how_.devices;
    after(exponential(rate), [this] {
      if (calm_) return;
      ask();
      ask_later();
    });
  }

  void ask() {
    const auto id = static_cast<serve::request_id>(requests_.size() + 1);
    std::vector<serve::token_id> prompt;
    const auto length = 3 + load_.below(30);
    for (std::uint64_t i = 0; i < length; ++i)
      prompt.push_back(static_cast<serve::token_id>(load_.below(50)));
    auto& kept = requests_[id];
    kept.prompt = prompt;
    kept.withdrawn = load_.chance(0.05);
    if (kept.withdrawn)
      after(std::chrono::milliseconds(load_.below(400)),
            [this, id] { caf::anon_send(gateway_, actors::withdraw{id}); });
    ++board_->requests_inside;
    caf::anon_send(gateway_,
                   actors::submit{test::request_of(id, std::move(prompt), answer_tokens),
                                  [this, id](const serve::generation_delta& d) { hear(id, d); }});
  }

  void hear(serve::request_id id, const serve::generation_delta& delta) {
    auto& request = requests_.at(id);
    request.tokens.insert(request.tokens.end(), delta.tokens.begin(), delta.tokens.end());
    if (delta.finish == serve::finish_reason::none) return;
    ++request.ends;
    request.failure = delta.failure;
  }

  // --- orders and faults
  // -----------------------------------------------------------------------------

  std::string some_device(random_stream& from) {
    return fmt::format("sim:{:02}", from.below(static_cast<std::uint64_t>(how_.devices)));
  }

  void order_later() {
    after(exponential(how_.moves_per_second), [this] {
      if (calm_) return;
      actors::assign what;
      what.device = orders_.chance(0.01) ? "sim:none" : some_device(orders_);
      what.by_policy = orders_.chance(0.2);
      what.as = static_cast<lease::role>(1 + orders_.below(3));
      caf::anon_send(gateway_,
                     actors::submit_assign{what, [](const tandem::result<lease::lease>&) {}});
      order_later();
    });
  }

  // A sole device gets as many a second as each of eight: a job gives up after 20 attempts in vain.
  void fault_later() {
    after(fault_period +
              std::chrono::milliseconds(faults_.below(900)) * std::max(1, 8 / how_.devices),
          [this] {
            if (calm_) return;
            hurt();
            fault_later();
          });
  }

  void hurt() {
    const double kind = faults_.share();
    if (kind < 0.35) {
      kill_device(some_device(faults_));
    } else if (kind < 0.5) {
      kill_coordinator();
    } else if (kind < 0.55) {
      lose_devices_of(some_machine());
    } else if (kind < 0.7) {
      cut_off(some_machine());
    } else if (kind < 0.75) {
      lose_machine(some_machine());
    } else if (kind < 0.88) {
      on_->slowness[some_device(faults_)] = 1.0 + static_cast<double>(faults_.below(8));
    } else if (kind < 0.95) {
      on_->slowness.clear();
    } else {
      silence_store();
    }
  }

  // No other head leads meanwhile: this one goes on once it hears of the store again.
  void silence_store() {
    if (std::exchange(*on_->store_silent, true)) return;
    ++silences_;
    after(std::chrono::milliseconds(500 + faults_.below(4'000)),
          [this] { *on_->store_silent = false; });
  }

  void kill_device(const std::string& name) {
    const auto devices = gpus();
    const auto it = devices.find(name);
    if (it == devices.end()) return;
    ++crashes_;
    caf::anon_send_exit(it->second, caf::exit_reason::kill);
  }
  // The actors by what they say of themselves.
  std::map<std::string, caf::actor> gpus() {
    std::map<std::string, caf::actor> found;
    for (const auto& one : machines_) found.merge(gpus_of(one));
    return found;
  }
  static std::map<std::string, caf::actor> gpus_of(const machine& on) {
    std::map<std::string, caf::actor> found;
    if (const auto* state =
            state_of<actors::node_actor::stateful_pointer<actors::node_state>>(on.node))
      for (const auto& [name, device] : state->devices)
        if (device.actor) found[name] = caf::actor_cast<caf::actor>(device.actor);
    return found;
  }
  template <class Pointer, class Handle>
  static decltype(&Pointer()->state) state_of(const Handle& who) {
    const auto strong = caf::actor_cast<caf::strong_actor_ptr>(who);
    if (!strong) return nullptr;
    auto* self = dynamic_cast<Pointer>(caf::actor_cast<caf::abstract_actor*>(strong));
    return self ? &self->state : nullptr;
  }
  // Null while the keeper waits to start the next one.
  actors::coordinator_actor coordinator_now() {
    return state_of<caf::stateful_actor<actors::keeper_state>*>(keeper_)->coordinator;
  }
  void kill_coordinator() {
    const auto now = coordinator_now();
    if (!now) return;
    ++crashes_;
    caf::anon_send_exit(now, caf::exit_reason::kill);
  }
  machine& some_machine() { return machines_[faults_.below(machines_.size())]; }
  void lose_devices_of(const machine& on) {
    for (const auto& [name, device] : gpus_of(on)) {
      ++crashes_;
      caf::anon_send_exit(device, caf::exit_reason::kill);
    }
  }
  // The network between it and the head is gone for a while; its devices stay as they are.
  void cut_off(machine& there) {
    if (!there.connection || !there.connected) return;
    ++cuts_;
    there.connected = false;
    there.connection->cut();
    after(std::chrono::milliseconds(20 + faults_.below(2'000)),
          [this, &there] { join_again(there); });
  }
  void join_again(machine& there) {
    if (std::exchange(there.connected, true)) return;
    if (!there.node) return start_node(there);
    tell_keeper(there);
  }
  // It leaves with all it has, without a word, and another one joins under its name later.
  void lose_machine(machine& there) {
    if (!there.connection || !there.connected) return;
    ++cuts_;
    there.connected = false;
    there.connection->cut();
    lose_devices_of(there);
    caf::anon_send_exit(std::exchange(there.node, nullptr), caf::exit_reason::kill);
    after(std::chrono::milliseconds(50 + faults_.below(3'000)),
          [this, &there] { join_again(there); });
  }

  void calm_down() {
    calm_ = true;
    on_->slowness.clear();
    *on_->store_silent = false;
    for (auto& one : machines_) join_again(one);
    for (int i = 0; i < how_.devices; ++i) {
      actors::assign back;
      back.device = fmt::format("sim:{:02}", i);
      back.by_policy = true;
      // A coordinator may be away just now: asked again.
      for (int again = 0; again < 4; ++again)
        after(again * 2s, [this, back] {
          caf::anon_send(gateway_,
                         actors::submit_assign{back, [](const tandem::result<lease::lease>&) {}});
        });
    }
  }

  // --- the checker
  // -------------------------------------------------------------------------------------

  struct asked {
    std::vector<serve::token_id> prompt;
    std::vector<serve::token_id> tokens;
    bool withdrawn = false;
    int ends = 0;
    std::optional<error> failure;
  };

  bool all_ended() const {
    return store_->unfinished_jobs().empty() &&
           std::all_of(requests_.begin(), requests_.end(), [](const auto& entry) {
             return entry.second.withdrawn || entry.second.ends > 0;
           });
  }

  void judge() {
    for (const auto& [id, request] : requests_) judge(id, request);
    undisturbed_ = undisturbed();
    for (const auto& job : jobs_) judge(*store_->find_job(job));
    judge_book();
  }

  void judge(const store::job_record& job) {
    if (job.status != job_status::succeeded)
      return on_->violated(fmt::format("{} is {} after step {}: {}", job.id, name_of(job.status),
                                       job.step, job.error_message));
    const checkpoint* last = nullptr;
    for (const auto& [path, kept] : *on_->checkpoints)
      if (path.starts_with(job.id + "/") && (!last || kept.step > last->step)) last = &kept;
    if (!last) return on_->violated(job.id + " succeeded and left no checkpoint");
    if (last->parameters != undisturbed_)
      on_->violated(
          fmt::format("the parameters of {} are not those of the undisturbed job", job.id));
  }

  void judge(serve::request_id id, const asked& request) {
    const auto expected = test::expected_tokens(request.prompt, answer_tokens);
    const auto& got = request.tokens;
    if (got.size() > expected.size() || !std::equal(got.begin(), got.end(), expected.begin()))
      on_->violated(
          fmt::format("request {}: token {} of {} is not the one it has alone", id,
                      std::mismatch(got.begin(), got.begin() + std::ssize(std::min(got, expected)),
                                    expected.begin())
                              .first -
                          got.begin(),
                      got.size()));
    if (request.withdrawn) return;
    if (request.failure)
      on_->violated(fmt::format("request {} failed: {}", id, request.failure->detail));
    else if (request.ends == 0)
      on_->violated(fmt::format("request {} was lost after {} tokens", id, got.size()));
    else if (got.size() != expected.size())
      on_->violated(
          fmt::format("request {} ended with {} of {} tokens", id, got.size(), expected.size()));
    if (request.ends > 1) on_->violated(fmt::format("request {} ended {} times", id, request.ends));
  }

  // One device alone, from the fake's own arithmetic: sums of whole numbers, exact in any order.
  std::vector<float> undisturbed() const {
    const auto settings = made_up_settings(on_->slots);
    const train::step_planner planner(on_->data, settings);
    test::fake_trainer_memory memory;
    for (std::int64_t step = 1; step <= planner.step_count(); ++step) {
      std::fill(memory.gradient.begin(), memory.gradient.end(), 0.0F);
      for (const auto& round : planner.rows_of(step).rounds)
        for (const auto& slot : round.slots)
          for (const auto id : slot.ids)
            for (std::size_t i = 0; i < test::fake_trainer_memory::count; ++i)
              memory.gradient[i] += static_cast<float>((id * 7 + static_cast<int>(i)) % 13);
      const auto rate =
          static_cast<float>(train::learning_rate_at(settings, step, planner.step_count()));
      for (std::size_t i = 0; i < test::fake_trainer_memory::count; ++i) {
        memory.first[i] = 0.5F * memory.first[i] + memory.gradient[i];
        memory.second[i] += 1.0F;
        memory.parameters[i] -= rate * memory.first[i] * memory.second[i];
      }
    }
    return memory.parameters;
  }

  void judge_book() {
    std::set<std::string> names;
    if (const auto report = leases_->newest())
      for (const auto& device : report->devices)
        if (!names.insert(device.held.device).second)
          on_->violated(device.held.device + " is in the book twice");
  }

  outcome result() {
    outcome out;
    out.violations = on_->violations;
    out.messages = messages_;
    out.requests = requests_.size();
    out.crashes = crashes_;
    out.cuts = cuts_;
    out.silences = silences_;
    for (const auto& job : jobs_) out.training_steps += store_->find_job(job)->step;
    out.jobs = jobs_.size();
    out.moves = witness_.moves();
    out.virtual_seconds = std::chrono::duration<double>(now().time_since_epoch()).count();
    out.busy_device_seconds = static_cast<double>(on_->busy_ns) * 1e-9;
    out.peak_memory = on_->peak_memory;
    for (const auto& [id, request] : requests_) {
      hash_ = fold(hash_, request.tokens.size());
      for (const auto token : request.tokens)
        hash_ = fold(hash_, static_cast<std::uint64_t>(token));
    }
    out.hash = fold(hash_, static_cast<std::uint64_t>(now().time_since_epoch().count()));
    return out;
  }

  knobs how_;
  random_stream schedule_;
  random_stream load_;
  random_stream faults_;
  random_stream orders_;
  std::shared_ptr<ground> on_;
  std::shared_ptr<memory_store> store_;
  std::multimap<clock_time, std::function<void()>> events_;
  std::vector<caf::resumable*> stalled_;
  std::map<serve::request_id, asked> requests_;
  std::vector<std::string> jobs_;
  std::vector<float> undisturbed_;
  bool calm_ = false;
  int crashes_ = 0;
  int cuts_ = 0;
  int silences_ = 0;
  std::uint64_t messages_ = 0;
  std::uint64_t hash_ = 0;

  std::shared_ptr<actors::gateway_board> board_;
  std::shared_ptr<actors::lease_board> leases_;
  test::actor_world world_;
  caf::scheduler::test_coordinator& scheduler_ = world_.scheduler();
  witness witness_{scheduler_, on_, how_.epochs_unchecked};
  caf::actor keeper_;
  actors::serve_coordinator_actor serve_;
  actors::gateway_actor gateway_;
  std::deque<machine> machines_;
  actors::train_desk_actor desk_;
};

}  // namespace

outcome run(std::uint64_t seed, const knobs& how) { return simulation(seed, how).run(); }

knobs drawn(std::uint64_t seed) {
  random_stream from(fold(seed, 9));
  knobs how;
  constexpr int sizes[] = {1, 2, 3, 4, 4, 8, 8, 16, 32, 64};
  how.devices = sizes[from.below(std::size(sizes))];
  how.nodes = 1 + static_cast<int>(from.below(4));
  how.seconds = 3.0 + from.share() * 6.0;
  how.requests_per_second = how.devices * (0.5 + 5.0 * from.share());
  how.moves_per_second = 1.0 + 30.0 * from.share();
  if (from.chance(0.2)) how.moves_per_second *= 10;  // a storm
  how.serve_piece = std::chrono::milliseconds(8 + from.below(24));
  how.train_piece = std::chrono::milliseconds(25 + from.below(130));
  how.memory_filled = from.chance(0.3) ? 0.95 : 0.6;
  return how;
}

}  // namespace tandem::sim
