// Weights versions published while the base and older versions are served.
#include "tests/support/actor_world.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace tandem;
using namespace tandem::test;
using namespace std::chrono_literals;
using serve::finish_reason;

namespace {

// A train coordinator's side: publishes and hears what came of it.
class versions_world : public serving_world {
 public:
  struct answer {
    std::optional<actors::version_published> published;
    std::optional<error> refused;
  };

  versions_world(std::vector<std::string> devices, fake_device_script script,
                 actors::serve_options options = {})
      : serving_world(std::move(devices), script, std::move(options)), publisher_(system()) {}

  // Sends the order; `answered` tells what came of it.
  void order(actors::publish_version what) { publisher_->send(serve_coordinator, std::move(what)); }
  answer answered() {
    answer got;
    publisher_->receive([&](const actors::version_published& fact) { got.published = fact; },
                        [&](const caf::error& why) { got.refused = actors::from_caf(why); },
                        caf::after(0s) >> [] {});
    return got;
  }
  answer publish(actors::publish_version what) {
    answer got;
    auto response = publisher_->request(serve_coordinator, caf::infinite, std::move(what));
    settle();
    response.receive([&](const actors::version_published& fact) { got.published = fact; },
                     [&](const caf::error& why) { got.refused = actors::from_caf(why); });
    return got;
  }
  void withdraw(std::vector<std::string> names) {
    publisher_->send(serve_coordinator, actors::withdraw_names{std::move(names)});
    settle();
  }
  // Runs messages one by one until so many tokens of the request are out.
  void run_until(serve::request_id id, std::size_t tokens) {
    while (replies[{id, 0}].tokens.size() < tokens) REQUIRE(scheduler().try_run_once());
  }
  const reply& reply_of(serve::request_id id) { return replies[{id, 0}]; }
  std::vector<std::string> devices_of_first() {
    const auto report = board->newest();
    return report->versions.front().devices;
  }
  std::vector<std::string> names() {
    std::vector<std::string> list;
    const auto report = board->newest();
    for (const auto& version : report->versions) list.push_back(version.name);
    return list;
  }

 private:
  caf::scoped_actor publisher_;
};

actors::publish_version adapter_version(std::uint64_t version, std::vector<std::string> names,
                                        std::shared_ptr<const model::adapter> adapter = {}) {
  actors::publish_version order;
  order.names = std::move(names);
  order.version = version;
  order.job = "ftjob-1";
  order.kind = "lora";
  order.adapter = adapter ? std::move(adapter) : std::make_shared<model::adapter>();
  return order;
}

actors::publish_version weights_version(std::uint64_t version, std::vector<std::string> names,
                                        std::vector<std::string> devices,
                                        std::string checkpoint = {}) {
  actors::publish_version order;
  order.names = std::move(names);
  order.version = version;
  order.job = "ftjob-2";
  order.kind = "full";
  for (auto& device : devices)
    order.by_device.push_back(
        {std::move(device), {version, nullptr, std::make_shared<model::weights>()}});
  order.checkpoint = std::move(checkpoint);
  return order;
}

serve::generation_request ask_of(serve::request_id id, const std::string& model,
                                 std::vector<serve::token_id> prompt, int max_tokens) {
  auto request = request_of(id, std::move(prompt), max_tokens);
  request.model = model;
  return request;
}

}  // namespace

TEST_CASE("a published version is asked for by name, beside the base") {
  versions_world world({"cpu:0", "cpu:1"}, {});
  const auto answer = world.publish(adapter_version(7, {"ft:a", "ft:a:ckpt-step-7"}));
  REQUIRE(answer.published);
  CHECK(answer.published->devices == std::vector<std::string>{"cpu:0", "cpu:1"});
  REQUIRE(world.names() == std::vector<std::string>{"ft:a", "ft:a:ckpt-step-7"});
  const auto report = world.board->newest();
  const auto& listed = report->versions.front();
  CHECK(listed.version == 7);
  CHECK(listed.job == "ftjob-1");
  CHECK(listed.kind == "lora");
  CHECK(listed.published_at > 0);
  CHECK(listed.devices == answer.published->devices);
  for (serve::request_id id = 1; id <= 12; ++id)
    world.ask(ask_of(id, id % 2 == 0 ? "ft:a" : "fake", {5, 6, 7}, 20));
  world.settle();
  for (serve::request_id id = 1; id <= 12; ++id) {
    const std::uint64_t version = id % 2 == 0 ? 7 : 0;
    CAPTURE(id);
    CHECK(world.reply_of(id).tokens == expected_tokens({5, 6, 7}, 20, 100, version));
    CHECK(world.reply_of(id).versions == std::set<std::uint64_t>{version == 0 ? 1 : version});
  }
}

TEST_CASE("a stream finishes on the version it began with, new requests get the new one") {
  versions_world world({"cpu:0"}, {});
  world.publish(adapter_version(1, {"ft:a"}));
  world.ask(ask_of(1, "ft:a", {1, 2, 3}, 60));
  world.ask(ask_of(2, "fake", {1, 2, 3}, 60));
  world.run_until(1, 10);
  world.order(adapter_version(2, {"ft:a"}));
  world.run_until(1, 20);
  REQUIRE(world.answered().published);
  world.ask(ask_of(3, "ft:a", {1, 2, 3}, 60));
  world.settle();
  CHECK(world.reply_of(1).tokens == expected_tokens({1, 2, 3}, 60, 100, 1));
  CHECK(world.reply_of(1).versions == std::set<std::uint64_t>{1});
  CHECK(world.reply_of(2).tokens == expected_tokens({1, 2, 3}, 60));
  CHECK(world.reply_of(3).tokens == expected_tokens({1, 2, 3}, 60, 100, 2));
  CHECK(world.reply_of(3).versions == std::set<std::uint64_t>{2});
}

TEST_CASE("publishing delays a running stream by no step") {
  std::vector<std::string> log;
  fake_device_script script;
  script.pieces = 4;
  script.log = [&](std::string what) { log.push_back(std::move(what)); };
  script.watch = [&](const serve::step_plan& plan) {
    log.push_back("step " + std::to_string(plan.number));
  };
  versions_world world({"cpu:0"}, script);
  world.ask(ask_of(1, "fake", {1, 2, 3}, 40));
  world.run_until(1, 5);
  const auto before = log.size();
  world.order(adapter_version(1, {"ft:a"}));
  while (!world.answered().published) REQUIRE(world.scheduler().try_run_once());
  const auto steps = std::count_if(log.begin() + static_cast<std::ptrdiff_t>(before), log.end(),
                                   [](const auto& line) { return line.rfind("step", 0) == 0; });
  CHECK(steps <= 2);
  world.settle();
  CHECK(world.reply_of(1).tokens == expected_tokens({1, 2, 3}, 40));
}

TEST_CASE("an old version leaves the devices after its last stream, and nobody holds it then") {
  std::vector<std::string> log;
  fake_device_script script;
  script.log = [&](std::string what) { log.push_back(std::move(what)); };
  versions_world world({"cpu:0"}, script);
  auto first = std::make_shared<model::adapter>();
  const std::weak_ptr<const model::adapter> watched = first;
  world.publish(adapter_version(1, {"ft:a"}, std::move(first)));
  world.ask(ask_of(1, "ft:a", {1, 2, 3}, 40));
  world.run_until(1, 5);
  world.order(adapter_version(2, {"ft:a"}));
  world.run_until(1, 20);
  CHECK(log == std::vector<std::string>{"add 1", "add 2"});
  CHECK_FALSE(watched.expired());
  world.settle();
  CHECK(log == std::vector<std::string>{"add 1", "add 2", "remove 1"});
  CHECK(watched.expired());
  CHECK(world.reply_of(1).tokens == expected_tokens({1, 2, 3}, 40, 100, 1));
}

TEST_CASE("a client that goes away lets its version go too") {
  std::vector<std::string> log;
  fake_device_script script;
  script.log = [&](std::string what) { log.push_back(std::move(what)); };
  versions_world world({"cpu:0"}, script);
  world.publish(adapter_version(1, {"ft:a"}));
  world.ask(ask_of(1, "ft:a", {1, 2, 3}, 200));
  world.run_until(1, 5);
  world.withdraw({"ft:a"});
  CHECK(world.names().empty());
  caf::anon_send(world.gateway, actors::withdraw{1});
  world.settle();
  CHECK(log.back() == "remove 1");
}

TEST_CASE("a name that is gone ends that one request, and streams on it go on") {
  versions_world world({"cpu:0"}, {});
  world.publish(adapter_version(1, {"ft:a"}));
  world.ask(ask_of(1, "ft:a", {1, 2, 3}, 40));
  world.run_until(1, 5);
  world.withdraw({"ft:a"});
  world.ask(ask_of(2, "ft:a", {1, 2, 3}, 40));
  world.settle();
  REQUIRE(world.reply_of(2).failure);
  CHECK(world.reply_of(2).failure->code == errc::not_found);
  CHECK(world.reply_of(1).tokens == expected_tokens({1, 2, 3}, 40, 100, 1));
}

TEST_CASE("weights of a full fine-tuning run only where they are") {
  versions_world world({"cpu:0", "cpu:1"}, {});
  const auto answer = world.publish(weights_version(3, {"ft:b"}, {"cpu:1"}));
  REQUIRE(answer.published);
  CHECK(answer.published->devices == std::vector<std::string>{"cpu:1"});
  for (serve::request_id id = 1; id <= 6; ++id) world.ask(ask_of(id, "ft:b", {9, 8}, 15));
  world.settle();
  for (serve::request_id id = 1; id <= 6; ++id)
    CHECK(world.reply_of(id).tokens == expected_tokens({9, 8}, 15, 100, 3));
  const auto report = world.board->newest();
  CHECK(report->lanes[0].steps == 0);
  CHECK(report->lanes[1].steps > 0);
}

TEST_CASE("a device that died gets its adapters again, and their streams go on") {
  std::vector<std::string> log;
  fake_device_script script;
  script.dies_at_step = 9;
  script.log = [&](std::string what) { log.push_back(std::move(what)); };
  versions_world world({"cpu:0"}, script);
  world.publish(adapter_version(4, {"ft:a"}));
  world.ask(ask_of(1, "ft:a", {1, 2, 3}, 30));
  world.ask(ask_of(2, "fake", {1, 2, 3}, 30));
  world.settle();
  CHECK(world.devices_of_first().empty());
  world.ask(ask_of(3, "ft:a", {4, 4}, 10));  // while the device is away
  world.pass(1s);
  CHECK(world.devices_made == 2);
  CHECK(log == std::vector<std::string>{"add 1", "add 1"});
  CHECK(world.reply_of(1).tokens == expected_tokens({1, 2, 3}, 30, 100, 4));
  CHECK(world.reply_of(2).tokens == expected_tokens({1, 2, 3}, 30));
  CHECK(world.reply_of(3).tokens == expected_tokens({4, 4}, 10, 100, 4));
  CHECK(world.devices_of_first() == std::vector<std::string>{"cpu:0"});
}

TEST_CASE("whole weights come back from their checkpoint") {
  std::vector<std::string> log;
  fake_device_script script;
  script.dies_at_step = 9;
  script.log = [&](std::string what) { log.push_back(std::move(what)); };
  versions_world world({"cpu:0"}, script);
  world.publish(weights_version(5, {"ft:b"}, {"cpu:0"}, "step-00000005"));
  world.ask(ask_of(1, "ft:b", {1, 2, 3}, 30));
  world.settle();
  world.pass(1s);
  CHECK(log == std::vector<std::string>{"add 1", "load step-00000005", "add 1"});
  CHECK(world.reply_of(1).tokens == expected_tokens({1, 2, 3}, 30, 100, 5));
}

TEST_CASE("whole weights without a checkpoint die with their device, and say so") {
  fake_device_script script;
  script.dies_at_step = 9;
  versions_world world({"cpu:0"}, script);
  world.publish(weights_version(5, {"ft:b"}, {"cpu:0"}));
  world.ask(ask_of(1, "ft:b", {1, 2, 3}, 30));
  world.ask(ask_of(2, "fake", {1, 2, 3}, 30));
  world.settle();
  REQUIRE(world.reply_of(1).failure);
  CHECK(world.reply_of(1).failure->code == errc::unavailable);
  CHECK_THAT(world.reply_of(1).failure->detail, Catch::Contains("version 5 of ftjob-2"));
  world.ask(ask_of(3, "ft:b", {1, 2, 3}, 30));
  world.pass(1s);
  CHECK(world.reply_of(2).tokens == expected_tokens({1, 2, 3}, 30));
  REQUIRE(world.reply_of(3).failure);
  CHECK(world.reply_of(3).failure->code == errc::unavailable);
}

TEST_CASE("a version in a checkpoint is published after a restart, while the base is loading") {
  actors::publish_version order = adapter_version(6, {"ft:a"});
  order.adapter = nullptr;
  order.checkpoint = "step-00000006";
  fake_device_script script;
  versions_world world({}, script);
  world.order(order);
  world.settle();
  CHECK_FALSE(world.answered().published);
  actors::node_options late;
  late.devices.push_back({"cpu:0", {0}, 1 << 20});
  late.own_threads = false;
  late.make = [&](const device_spec& spec) {
    return std::make_unique<fake_device>(spec.name, script);
  };
  world.house(world.system().spawn(actors::node, late, world.coordinator));
  world.settle();
  REQUIRE(world.answered().published);
  world.ask(ask_of(1, "ft:a", {1, 2, 3}, 20));
  world.settle();
  CHECK(world.reply_of(1).tokens == expected_tokens({1, 2, 3}, 20, 100, 6));
}

TEST_CASE("a version that no device has room for is refused with the device's numbers") {
  fake_device_script script;
  script.variants_max = 1;
  versions_world world({"cpu:0", "cpu:1"}, script);
  REQUIRE(world.publish(adapter_version(1, {"ft:a"})).published);
  const auto answer = world.publish(adapter_version(2, {"ft:a"}));
  REQUIRE(answer.refused);
  CHECK(answer.refused->code == errc::no_memory);
  CHECK_THAT(answer.refused->detail, Catch::Contains("1 MiB is free"));
  world.ask(ask_of(1, "ft:a", {1, 2, 3}, 20));
  world.settle();
  CHECK(world.reply_of(1).tokens == expected_tokens({1, 2, 3}, 20, 100, 1));
}

TEST_CASE("orders that make no sense are refused") {
  versions_world world({"cpu:0"}, {});
  const auto refusal = [&](actors::publish_version order) {
    const auto answer = world.publish(std::move(order));
    REQUIRE(answer.refused);
    return answer.refused->code;
  };
  CHECK(refusal(adapter_version(1, {"fake"})) == errc::conflict);
  CHECK(refusal(adapter_version(1, {})) == errc::bad_request);
  auto nothing = adapter_version(1, {"ft:a"});
  nothing.adapter = nullptr;
  CHECK(refusal(nothing) == errc::bad_request);
  CHECK(refusal(weights_version(1, {"ft:b"}, {"cpu:9"})) == errc::unavailable);
}

TEST_CASE("every code of an error crosses actors") {
  for (int code = 0; code <= static_cast<int>(errc::internal); ++code) {
    const error why{static_cast<errc>(code), "what happened", "where"};
    const auto crossed = actors::to_caf(why);
    CHECK(static_cast<bool>(crossed));
    CHECK(actors::from_caf(crossed) == why);
    CHECK(actors::is_refusal(crossed));
  }
}
