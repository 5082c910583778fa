// What crosses between processes arrives as it was sent.
#include "actors/keeper.hpp"
#include "actors/link.hpp"
#include "actors/member.hpp"
#include "actors/messages.hpp"
#include "actors/roster.hpp"
#include "actors/wire_context.hpp"
#include "actors/wire_types.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <set>
#include <string>

using namespace tandem;
using namespace tandem::actors;

namespace {

struct linked : caf::actor_system_config {
  linked() {
    add_wire_types(*this);
    set("scheduler.max-threads", 2);
    const auto loaded = load_link(*this, {});
    INFO((loaded ? "" : loaded.error().detail));
    REQUIRE(loaded);
  }
};

class wire {
 public:
  wire() : system_(config_), proxies_(system_, link_of(system_)) {}

  result<transport::bytes> write(caf::message what) {
    wire_context context(system_, proxies_);
    wire_message message{{}, std::move(what)};
    transport::bytes bytes;
    if (auto done = write_message(context, message, bytes); !done) return done.error();
    return bytes;
  }
  // There and back; the bytes of what arrived are those of what was sent.
  template <class T>
  T cross(const T& what) {
    const auto sent = write(caf::make_message(what));
    if (!sent) FAIL(sent.error().detail);
    wire_context context(system_, proxies_);
    auto arrived = read_message(context, {sent->data(), sent->size()});
    if (!arrived) FAIL(arrived.error().detail);
    const caf::message content = std::move(arrived->content);
    REQUIRE(content.match_elements<T>());
    const T& found = content.get_as<T>(0);
    const auto again = write(caf::make_message(found));
    REQUIRE(again);
    CHECK(*again == *sent);
    const auto text = caf::deep_to_string(found);
    seen.insert(text.substr(0, text.find('(')));
    return found;
  }
  caf::actor_system& system() { return system_; }

  std::set<std::string> seen;

 private:
  linked config_;
  caf::actor_system system_;
  caf::proxy_registry proxies_;
};

lease::lease a_lease() {
  lease::lease held;
  held.device = "node2/cpu:0-1";
  held.held_as = lease::role::shared;
  held.holder = "serve smol";
  held.at = 77;
  held.guest = "job-1";
  held.serve_since = 70;
  held.train_since = 75;
  return held;
}

serve::device_facts some_facts() {
  serve::device_facts facts{"node2/cpu:0-1", "avx2", 2, 1ULL << 40U, {}};
  for (std::size_t i = 0; i < facts.memory_by_owner.size(); ++i)
    facts.memory_by_owner[i] = 1000 + i;
  return facts;
}

serve::sampling_parameters some_sampling() {
  serve::sampling_parameters sampling;
  sampling.temperature = 0.7F;
  sampling.top_p = 0.9F;
  sampling.top_k = 40;
  sampling.logit_bias = {{5, -3.5F}, {9, 2.25F}};
  sampling.seed = 0xdeadbeefULL;
  sampling.logprobs = 3;
  return sampling;
}

serve::step_plan a_plan() {
  serve::step_plan plan;
  plan.number = 1ULL << 33U;
  plan.releases = {3, 1};
  plan.starts.push_back({2, 4, some_sampling(), 1, {5, 6, 7}, {8}});
  plan.chunks.push_back({2, 0, {5, 6, 7, 8}, {11, 12}, true, true, {0, 2}});
  return plan;
}

serve::step_result a_result() {
  serve::step_result what;
  what.number = 12;
  serve::token_logprob token{42, -1.5F, 3, {{42, -1.5F}, {7, -2.5F}}};
  what.sampled.push_back({2, token});
  what.prompt.push_back({2, 1, {token, token}});
  what.device_ns = 1'234'567'890;
  return what;
}

}  // namespace

TEST_CASE("every order to a device and every answer arrives as it was sent") {
  wire w;
  CHECK(w.cross(take_lease{a_lease()}).now == a_lease());
  const auto taken = w.cross(lease_taken{some_facts(), a_lease()});
  CHECK(taken.facts == some_facts());
  CHECK(taken.before == a_lease());
  serve::load_order order{"/models/x.gguf", "q4_1", "f16", 8192, 1 << 30, 16, 256};
  CHECK(w.cross(load_model{9, order}).order == order);
  serve::loaded_model loaded{3, "q4_1", "f16", 135'000'000, 8192, 4096, 64, some_facts(), nullptr};
  CHECK(w.cross(loaded) == loaded);
  const auto step = w.cross(run_step{9, a_plan(), 5'000'000});
  CHECK(step.plan == a_plan());
  CHECK(step.at == 9);
  CHECK(step.training_gap_ns == 5'000'000);
  CHECK(w.cross(a_result()) == a_result());
  CHECK(w.cross(forget_sequences{4}).at == 4);
  CHECK(w.cross(remove_version{4, 6}).id == 6);
  const auto version = w.cross(load_version{4, 6, "/jobs/a/step-10", 10});
  CHECK(version.checkpoint == "/jobs/a/step-10");
  CHECK(version.version == 10);
  CHECK(w.cross(some_facts()) == some_facts());
  CHECK(w.cross(drop_training{4, "job-1"}).job == "job-1");
  CHECK(w.cross(close_training{4, "job-1"}).job == "job-1");

  // Nothing that a device answers is left out: what else there is carries shared memory.
  for (const auto& signature : w.system().message_types<gpu_actor>()) {
    CAPTURE(signature);
    const bool crosses = std::ranges::any_of(
        w.seen, [&](const std::string& type) { return signature.find(type) != std::string::npos; });
    const bool stays = std::ranges::any_of(
        std::vector<std::string>{"add_version", "open_training", "join_training", "run_training",
                                 "next_piece", "gap_over"},
        [&](const std::string& type) { return signature.find(type) != std::string::npos; });
    CHECK((crosses || stays));
  }
}

TEST_CASE("what nodes, devices and those who lend them say to each other arrives as it was sent") {
  wire w;
  CHECK(w.cross(device_ended{"cpu:0-0", "killed by signal 9 (Killed)"}).how.ends_with("(Killed)"));
  CHECK(w.cross(work_began{a_lease()}).in == a_lease());
  const auto listener = w.system().spawn(
      [](caf::event_based_actor*) -> caf::behavior { return {[](const let_go&) {}}; });
  const auto told = w.cross(keep_told{listener, true});
  CHECK(told.who == listener);
  CHECK(told.knows_none);
  const auto joined =
      w.cross(join_cluster{"node2", "10.0.0.2:7001", {"node2/cpu:0"}, true, 4711, listener});
  CHECK(joined.devices == std::vector<std::string>{"node2/cpu:0"});
  CHECK(joined.member == listener);
  CHECK(joined.is_worker);
  CHECK(w.cross(cluster_joined{listener}).keeper == listener);
  CHECK(w.cross(watch_workers{"node2", listener}).by == listener);
  CHECK(w.cross(worker_ended{"node2/cpu:0", 4711, "it fell silent"}).life == 4711);
  CHECK(w.cross(leave_cluster{"node2"}).node == "node2");
  CHECK(w.cross(let_go{"its devices are idle"}).why == "its devices are idle");
  const auto book = w.system().spawn(coordinator, coordinator_options{});
  CHECK(w.cross(coordinator_changed{book}).now == book);
  CHECK(w.cross(device_up{"node2/cpu:0", gpu_actor()}).name == "node2/cpu:0");
  caf::anon_send_exit(listener, caf::exit_reason::user_shutdown);
  caf::anon_send_exit(book, caf::exit_reason::user_shutdown);
}
