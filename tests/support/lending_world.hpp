// A coordinator among scripted others: devices, who serves, who trains and the book only write down
// what they hear, in one journal, and answer as told.
#pragma once

#include "actors/keeper.hpp"
#include "tests/support/actor_world.hpp"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::test {

// What the others do, and what they heard.
struct lending_script {
  std::vector<std::string> journal;
  void note(std::string_view what, const lease::lease& of) {
    journal.push_back(std::string(what) + " " + of.device + " " +
                      std::string(lease::name_of(of.held_as)));
  }

  std::map<std::string, lease::lease> on_device;  // what each device holds
  std::map<std::string, std::optional<error>> device_refuses;
  bool gives_back = true;  // who serves; else it keeps the order open
  std::optional<error> keeps_device;
  std::map<std::string, caf::typed_response_promise<actors::device_released>> asked_back;
  // Answers that are on their way already and cannot be taken back; sent at its next tick.
  std::vector<caf::typed_response_promise<actors::device_released>> given_back;
  std::optional<error> store_fails;  // to write
  std::optional<error> book_fails;   // to be read
  lease::policy_settings policy;     // as who serves heard it
  int writes = 0;
  int pin_writes = 0;
};
using lending_script_pointer = std::shared_ptr<lending_script>;

class memory_book final : public lease::lease_store {
 public:
  explicit memory_book(lending_script_pointer script) : script_(std::move(script)) {}
  result<saved> load() const override {
    if (script_->book_fails) return *script_->book_fails;
    return kept;
  }
  result<void> save(const lease::lease& now) override {
    if (script_->store_fails) return *script_->store_fails;
    ++script_->writes;
    script_->note("written", now);
    auto done = forget(now.device, now.at);
    kept.leases.push_back(now);
    return done;
  }
  result<void> forget(std::string_view device, lease::epoch newest) override {
    std::erase_if(kept.leases, [&](const auto& held) { return held.device == device; });
    kept.newest = std::max(kept.newest, newest);
    return {};
  }
  result<void> pin(std::string_view device, std::optional<lease::role> as) override {
    if (script_->store_fails) return *script_->store_fails;
    ++script_->pin_writes;
    std::erase_if(kept.pins, [&](const auto& pin) { return pin.first == device; });
    if (as) kept.pins.emplace_back(device, *as);
    return {};
  }
  saved kept;

 private:
  lending_script_pointer script_;
};

inline actors::gpu_actor::behavior_type scripted_device(actors::gpu_actor::pointer self,
                                                        std::string name,
                                                        lending_script_pointer script) {
  using namespace actors;
  const auto facts = [name] {
    return serve::device_facts{name, "fake", 1, false, 1000, {300, 0, 200}};
  };
  self->set_exception_handler([](std::exception_ptr&) -> caf::error {
    return to_caf({errc::internal, "the device broke", ""});
  });
  return {
      [=](const take_lease& order) -> caf::result<lease_taken> {
        if (const auto why = script->device_refuses[name]) return to_caf(*why);
        script->note("takes", order.now);
        return lease_taken{facts(), std::exchange(script->on_device[name], order.now)};
      },
      [](const load_model&) { return serve::loaded_model{}; },
      [](const run_step&) { return serve::step_result{}; },
      [](const withdraw_step&) {},
      [](const forget_sequences&) {},
      [=](const add_version&) { return facts(); },
      [=](const remove_version&) { return facts(); },
      [=](const load_version&) { return facts(); },
      [](const open_training&) { return training_opened{}; },
      [](const join_training&) -> caf::result<void> { return caf::unit; },
      [](const run_training&) { return train::outcome{}; },
      [](const drop_training&) -> caf::result<void> { return caf::unit; },
      [=](const close_training&) -> caf::result<void> {
        script->journal.push_back("closes " + name);
        return caf::unit;
      },
      [](next_piece) {},
      [](const gap_over&) {},
  };
}

inline actors::serve_coordinator_actor::behavior_type scripted_server(
    actors::serve_coordinator_actor::pointer self, lending_script_pointer script,
    actors::coordinator_actor coordinator) {
  using namespace actors;
  self->send(coordinator, want_devices{"serve tiny", self});
  const auto take_back = [=](const lease::lease& now) {
    auto open = script->asked_back.extract(now.device);
    if (open) open.mapped().deliver(to_caf({errc::cancelled, "it was taken back", ""}));
  };
  return {
      [=](const lease_granted& fact) {
        script->note("granted", fact.now);
        take_back(fact.now);
      },
      [=](const lease_changed& fact) {
        script->note("changed", fact.now);
        take_back(fact.now);
      },
      [=](const policy_changed& fact) { script->policy = fact.now; },
      [=](const release_device& order) -> caf::result<device_released> {
        script->note("asked back", order.was);
        if (script->keeps_device) return to_caf(*script->keeps_device);
        if (script->gives_back) return device_released{1, 0};
        auto answer = self->make_response_promise<device_released>();
        script->asked_back[order.was.device] = answer;
        return answer;
      },
      [=](const lease_lost& fact) { script->note("lost", fact.was); },
      [=](const coordinator_changed& fact) {
        self->send(fact.now, want_devices{"serve tiny", self});
      },
      [](const generate&) {},
      [](const cancel_request&) {},
      [](const publish_version&) { return version_published{}; },
      [](const withdraw_names&) {},
      [](subscribe) {},
      [=](tick) {
        for (auto& answer : std::exchange(script->given_back, {}))
          answer.deliver(device_released{1, 0});
      },
  };
}

inline actors::train_coordinator_actor::behavior_type scripted_trainer(
    actors::train_coordinator_actor::pointer self, lending_script_pointer script,
    std::vector<std::string> homes) {
  using namespace actors;
  return {
      [](const job_changed&) {},
      [](park) {},
      [=](const go_on&) {
        self->quit(to_caf({errc::internal, "the trainer broke", ""}));
      },
      [=](const training_granted& fact) { script->note("may train", fact.now); },
      [=](const training_revoked& fact) { script->note("may not train", fact.now); },
      [=](homes_changed) { script->journal.push_back("homes changed"); },
      [](look_at_work) {},
      [=](const coordinator_changed& fact) {
        self->request(fact.now, caf::infinite, want_training{"ftjob-1", 0, self})
            .then([=](const std::vector<shared_device>&) {
              self->send(fact.now, job_resident{"ftjob-1", homes, 100});
            });
      },
  };
}

class lending_world : public actor_world {
 public:
  explicit lending_world(std::vector<std::string> names, lease::policy_settings policy = {})
      : script(std::make_shared<lending_script>()),
        book(std::make_shared<memory_book>(script)),
        board(std::make_shared<actors::lease_board>()),
        names_(std::move(names)),
        asker_(system()) {
    actors::coordinator_options options;
    options.policy = policy;
    options.book = book;
    options.board = board;
    first = system().spawn(actors::coordinator, options);
    keeper = house(
        system().spawn(actors::keeper, actors::keeper_options{.coordinator = options}, first));
    server = house(system().spawn(scripted_server, script, first));
    told(server);
    for (const auto& name : names_) come(name);
    settle();
  }

  template <class Handle>
  void told(const Handle& who) {
    caf::anon_send(keeper, actors::keep_told{caf::actor_cast<caf::actor>(who)});
  }
  void come(const std::string& name) {
    script->on_device.erase(name);
    devices[name] = house(system().spawn(scripted_device, name, script));
    caf::anon_send(coordinator(), actors::device_up{name, devices[name]});
  }
  void die(const std::string& name) {
    caf::anon_send_exit(devices[name], caf::exit_reason::kill);
    settle();
  }
  // Serving has given this device back, and its answer is on its way.
  void gives_back(const std::string& device) {
    auto open = script->asked_back.extract(device);
    ensure(!open.empty(), "a device that nobody asked back");
    script->given_back.push_back(open.mapped());
  }
  void answers_arrive() {
    caf::anon_send(server, actors::tick{});
    settle();
  }
  // A job that is open on every device, or on these.
  void job_comes(std::vector<std::string> homes = {}) {
    if (homes.empty()) homes = names_;
    trainer = house(system().spawn(scripted_trainer, script, homes));
    told(trainer);
    caf::anon_send(trainer, actors::coordinator_changed{coordinator()});
    settle();
  }
  void job_leaves() {
    caf::anon_send(coordinator(), actors::return_devices{"ftjob-1"});
    settle();
  }
  result<lease::lease> assign(const std::string& device, std::optional<lease::role> as) {
    actors::assign order{device, as.value_or(lease::role::idle), !as};
    return ask<lease::lease>(order);
  }
  result<lease::policy_settings> use(const lease::policy_settings& policy) {
    return ask<lease::policy_settings>(actors::set_policy{policy});
  }
  void load(lease::service_view service) {
    caf::anon_send(coordinator(), actors::serve_load{{}, service});
    settle();
  }
  std::vector<lease::lease> leases() {
    std::vector<lease::lease> all;
    auto response = asker_->request(coordinator(), caf::infinite, actors::list_leases{});
    settle();
    response.receive([&](std::vector<lease::lease>& got) { all = std::move(got); },
                     [](const caf::error&) {});
    return all;
  }
  std::string roles() {
    std::string text;
    for (const auto& held : leases())
      text += (text.empty() ? "" : " ") + std::string(lease::name_of(held.held_as));
    return text;
  }
  // What was heard since the last time.
  std::vector<std::string> heard() { return std::exchange(script->journal, {}); }
  std::vector<lease::event> events(std::string_view kind) {
    std::vector<lease::event> found;
    for (auto& event : board->since(0, 8192))
      if (event.kind == kind) found.push_back(event);
    return found;
  }
  void coordinator_dies() {
    caf::anon_send_exit(coordinator(), caf::exit_reason::kill);
    settle();
  }
  // Those that a node would announce again.
  void announce_again() {
    for (const auto& [name, device] : devices)
      caf::anon_send(coordinator(), actors::device_up{name, device});
    settle();
  }
  actors::coordinator_actor coordinator() {
    auto* state = caf::actor_cast<caf::strong_actor_ptr>(keeper)->get();
    auto& now = dynamic_cast<caf::stateful_actor<actors::keeper_state>&>(*state).state.coordinator;
    return now ? now : first;
  }

  lending_script_pointer script;
  std::shared_ptr<memory_book> book;
  std::shared_ptr<actors::lease_board> board;
  actors::coordinator_actor first;
  caf::actor keeper;
  actors::serve_coordinator_actor server;
  actors::train_coordinator_actor trainer;
  std::map<std::string, actors::gpu_actor> devices;

 private:
  template <class T, class Order>
  result<T> ask(Order order) {
    result<T> got = error{errc::internal, "no answer", ""};
    auto response = asker_->request(coordinator(), caf::infinite, std::move(order));
    settle();
    response.receive([&](T& answer) { got = std::move(answer); },
                     [&](const caf::error& why) { got = actors::from_caf(why); });
    return got;
  }

  std::vector<std::string> names_;
  caf::scoped_actor asker_;
};

}  // namespace tandem::test
