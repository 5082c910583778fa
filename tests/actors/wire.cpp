// What crosses between processes arrives as it was sent.
#include "actors/doorkeeper.hpp"
#include "actors/gpu.hpp"
#include "actors/keeper.hpp"
#include "actors/link.hpp"
#include "actors/member.hpp"
#include "actors/messages.hpp"
#include "actors/roster.hpp"
#include "actors/serve_coordinator.hpp"
#include "actors/wire_context.hpp"
#include "actors/wire_types.hpp"
#include "tests/support/fake_device.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <set>
#include <string>

using namespace tandem;
using namespace tandem::actors;
using namespace tandem::test;

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
    beside_ = context.attachments;
    return bytes;
  }
  // There and back; the bytes of what arrived are those of what was sent.
  template <class T>
  T cross(const T& what) {
    const auto sent = write(caf::make_message(what));
    if (!sent) FAIL(sent.error().detail);
    wire_context context(system_, proxies_);
    context.attachments = beside_;
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
  std::vector<transport::buffer_ptr> beside_;  // what was written last
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
  serve::device_facts facts{"node2/cpu:0-1", "avx2", 2, true, 1ULL << 40U, {}};
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
  plan.follows = (1ULL << 33U) - 1;
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

train::group_layout a_layout() {
  train::group_layout layout;
  layout.parameters = {{"embed", 0, 16, true}, {"norm", 16, 16, false}};
  layout.shards = train::shards_of(layout.parameters, 2);
  layout.embedding_rank = 0;
  layout.embedded_rows = 4;
  layout.embedded_columns = 2;
  return layout;
}

void cross_training(wire& w) {
  open_training open{9, {"job-1", "/models/x", {}, 2, 1, "/jobs/job-1/step-4", true, 0}};
  open.order.settings.targets = {"q_proj", "v_proj"};
  open.order.settings.learning_rate = 3e-4;
  const auto asked = w.cross(open);
  CHECK(asked.order.settings.targets == open.order.settings.targets);
  CHECK(asked.order.settings.learning_rate == 3e-4);
  CHECK(asked.order.device_rank == 1);
  CHECK(asked.order.apart);
  CHECK(asked.order.keeps == 0);
  const auto memory = std::make_shared<fake_trainer_memory>();
  const training_opened opened{{{1, 2, 3, 4, 5, 6, 7, 8}, 32, 4, a_layout(), memory, 1}, {}};
  const auto answer = w.cross(opened);
  CHECK(answer.facts.memory == opened.facts.memory);
  CHECK(answer.facts.layout == a_layout());
  CHECK(answer.facts.keeps == 1);
  CHECK(answer.facts.shared == nullptr);  // memory stays where it is
  const auto joined = w.cross(join_training{9, "job-1", {memory, nullptr, nullptr}});
  CHECK(joined.group == std::vector<std::shared_ptr<train::trainer_memory>>(3));
  train::order order{train::order_kind::update, "job-1", 7, 1, 1, {}, 0.125, 0.25, 0.5, 7};
  order.slots = {{{1, 2}, {2, -1}, {2}}};
  const auto run = w.cross(run_training{9, order}).what;
  CHECK(run.kind == order.kind);
  CHECK(run.home == 1);
  CHECK(run.slots == order.slots);
  CHECK(run.learning_rate == 0.25);
  train::outcome came;
  came.kind = train::order_kind::norm;
  came.home = 1;
  came.squares = {1.5, 2.5};
  came.losses = {{0.5, 3, 1}};
  const auto heard = w.cross(came);
  CHECK(heard.home == 1);
  CHECK(heard.squares == came.squares);
  CHECK(heard.losses == came.losses);
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
  serve::loaded_model loaded{3,    "q4_1", "f16",        135'000'000, 8192,
                             4096, 64,     some_facts(), nullptr,     true};
  CHECK(w.cross(loaded) == loaded);
  const auto step = w.cross(run_step{9, a_plan(), 5'000'000});
  CHECK(step.plan == a_plan());
  CHECK(step.at == 9);
  CHECK(step.training_gap_ns == 5'000'000);
  CHECK(w.cross(a_result()) == a_result());
  CHECK(w.cross(withdraw_step{4, 17}).number == 17);
  CHECK(w.cross(forget_sequences{4}).at == 4);
  CHECK(w.cross(remove_version{4, 6}).id == 6);
  const auto version = w.cross(load_version{4, 6, "/jobs/a/step-10", 10});
  CHECK(version.checkpoint == "/jobs/a/step-10");
  CHECK(version.version == 10);
  CHECK(w.cross(some_facts()) == some_facts());
  cross_training(w);
  CHECK(w.cross(drop_training{4, "job-1"}).job == "job-1");
  CHECK(w.cross(close_training{4, "job-1"}).job == "job-1");

  // Nothing that a device answers is left out: what else there is carries shared memory.
  for (const auto& signature : w.system().message_types<gpu_actor>()) {
    CAPTURE(signature);
    const bool crosses = std::ranges::any_of(
        w.seen, [&](const std::string& type) { return signature.find(type) != std::string::npos; });
    const bool stays = std::ranges::any_of(
        std::vector<std::string>{"add_version", "next_piece", "gap_over"},
        [&](const std::string& type) { return signature.find(type) != std::string::npos; });
    CHECK((crosses || stays));
  }
}

TEST_CASE("what couriers say to each other arrives as it was sent") {
  wire w;
  const auto device =
      w.system().spawn(actors::gpu, std::make_unique<fake_device>("a", fake_device_script{}));
  const courier_actor one = w.system().spawn(
      courier, std::shared_ptr<train::trainer_memory>(std::make_shared<fake_trainer_memory>()),
      caf::actor_cast<caf::strong_actor_ptr>(device));
  const train::memory_range range{1, train::arena_kind::summed, 4, 3};
  CHECK(w.cross(fetch_range{range}).what == range);
  auto bytes = *make_tensor(link_of(w.system()).buffers(), tensor_type::u8, {3});
  bytes.data->bytes()[2] = std::byte{7};
  CHECK(w.cross(bytes).data->bytes()[2] == std::byte{7});
  const auto stored = w.cross(store_range{range, bytes});
  CHECK(stored.what == range);
  CHECK(stored.bytes.data->bytes()[2] == std::byte{7});
  const auto brings = w.cross(bring_ranges{train::order_kind::reduce, 1, {range}, {one, one}});
  CHECK(brings.kind == train::order_kind::reduce);
  CHECK(brings.what == std::vector{range});
  CHECK(brings.group == std::vector<courier_actor>{one, one});
  CHECK(w.cross(take_ranges{{range}, {one}}).group == std::vector<courier_actor>{one});
  const auto keeps = w.cross(keep_ranges{1, {range}, {one, one}});
  CHECK(keeps.buddy == 1);
  CHECK(keeps.what == std::vector{range});
  CHECK(keeps.group == std::vector<courier_actor>(2, one));
  CHECK(w.cross(ranges_moved{1ULL << 40U}).bytes == 1ULL << 40U);
  CHECK(w.cross(training_opened{{}, one}).courier == one);
  // An answer that brings nothing has an empty buffer all the same.
  CHECK(w.cross(*make_tensor(link_of(w.system()).buffers(), tensor_type::u8, {0})).data->size() ==
        0);
  for (const auto& who : {caf::actor_cast<caf::actor>(device), caf::actor_cast<caf::actor>(one)})
    caf::anon_send_exit(who, caf::exit_reason::user_shutdown);
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
  const auto joined = w.cross(join_cluster{
      "node2", "10.0.0.2:7001", {"node2/cpu:0"}, true, 4711, listener, "postgresql 1", 3});
  CHECK(joined.store == "postgresql 1");
  CHECK(joined.epoch == 3);
  CHECK(joined.devices == std::vector<std::string>{"node2/cpu:0"});
  CHECK(joined.member == listener);
  CHECK(joined.is_worker);
  const auto let_in = w.cross(cluster_joined{listener, "postgresql 1", 3, {"10.0.0.3:7000"}});
  CHECK(let_in.keeper == listener);
  CHECK(let_in.store == "postgresql 1");
  CHECK(let_in.epoch == 3);
  CHECK(let_in.heads == std::vector<std::string>{"10.0.0.3:7000"});
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

TEST_CASE("what a library and its borrowers say to each other arrives as it was sent") {
  wire w;
  const auto asked = w.cross(list_files{"models/tiny", shelf::purpose::training, true});
  CHECK(asked.path == "models/tiny");
  CHECK(asked.what == shelf::purpose::training);
  CHECK(asked.with_hashes);
  const shelf::listing listing{
      "boot", "tiny", true, {{"config.json", 2, std::string(64, 'a'), {1, 2, 3}}}};
  CHECK(w.cross(listing) == listing);
  const auto piece = w.cross(read_file{"models/tiny", shelf::purpose::version, 3, 1ULL << 40U, 8});
  CHECK(piece.what == shelf::purpose::version);
  CHECK(piece.file == 3);
  CHECK(piece.offset == 1ULL << 40U);
  CHECK(piece.bytes == 8);
}

TEST_CASE("what a node's door and who serves say to each other arrives as it was sent") {
  wire w;
  const auto book = w.system().spawn(coordinator, coordinator_options{});
  const auto server = w.system().spawn(serve_coordinator, serve_options{}, book);
  w.cross(ask_terms{});
  door_terms terms;
  terms.is_wanted = true;
  terms.serve_coordinator = server;
  terms.http_host = "10.0.0.1";
  terms.http_port = 8000;
  terms.machine = "boot";
  terms.model_path = "/models/a.gguf";
  terms.inside_max = 1088;
  terms.api_keys = {true, {std::string(32, '\0'), std::string(32, '\xff')}};
  const auto told = w.cross(terms);
  CHECK(told.serve_coordinator == server);
  CHECK(told.machine == "boot");
  CHECK(told.model_path == "/models/a.gguf");
  CHECK(told.api_keys == terms.api_keys);
  CHECK_FALSE(told.admin_keys.are_needed);

  generate order;
  order.request.id = 1ULL << 63U;
  order.request.prompt = {5, 6};
  order.request.stops.stop = {"\n\n"};
  order.request.sampling = some_sampling();
  order.left_ns = 1'000;
  order.sent = {{{7, 8}, false}, {{7}, true}};
  order.weights_version = 3;
  const auto asked = w.cross(order);
  CHECK(asked.request.id == order.request.id);
  CHECK(asked.request.stops == order.request.stops);
  CHECK(asked.request.sampling == order.request.sampling);
  CHECK(asked.sent[0].tokens == std::vector<serve::token_id>{7, 8});
  CHECK(asked.sent[1].ended);
  CHECK(w.cross(cancel_request{7}).id == 7);
  w.cross(subscribe{});
  serve::generation_delta delta;
  delta.id = 9;
  delta.text = "Once";
  delta.tokens = {4};
  delta.stop_string = "\n";
  delta.failure = error{errc::unavailable, "why", ""};
  const auto heard = w.cross(deltas{{delta}}).list.front();
  CHECK(heard.text == "Once");
  CHECK(heard.stop_string == delta.stop_string);
  CHECK(heard.failure == delta.failure);
  serve_report report{"smol", {}, 2, {}, {{"ft:a", 3, "job-1", "lora", 17, {"cpu:0"}}}};
  report.lanes.push_back({a_lease(), some_facts(), {}, {}, true, 4, 5, 6, 7});
  const auto seen = w.cross(report);
  CHECK(seen.versions == report.versions);
  CHECK(seen.lanes.front().held == a_lease());
  CHECK(seen.lanes.front().ready);
  caf::anon_send_exit(server, caf::exit_reason::user_shutdown);
  caf::anon_send_exit(book, caf::exit_reason::user_shutdown);
}
