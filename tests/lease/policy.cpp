#include "runtime/lease/policy.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <random>

using namespace tandem;
using namespace tandem::lease;

namespace {

constexpr std::int64_t tick_ms = 100;

// A cluster that does as the policy wishes, on its own clock.
struct cluster {
  policy_settings settings;
  cluster_view view;
  int changes = 0;

  explicit cluster(int devices, role held = role::serve) {
    for (int i = 0; i < devices; ++i) {
      device_view d;
      d.name = "cpu:" + std::to_string(i);
      d.held_as = held;
      d.resident = true;
      d.since_ms = -100'000;
      view.devices.push_back(d);
    }
    view.training = {"ftjob-1", 0};
  }

  std::vector<wish> look() {
    view.now_ms += tick_ms;
    const auto now = pressure_of(settings, view);
    lasts(view.calm_since_ms, now == pressure::calm);
    lasts(view.safe_since_ms, now != pressure::threatened);
    const auto wishes = decide(settings, view);
    REQUIRE(wishes.size() == view.devices.size());
    for (std::size_t i = 0; i < wishes.size(); ++i) {
      auto& d = view.devices[i];
      CHECK(wishes[i].device == d.name);
      CHECK_FALSE(wishes[i].why.empty());
      if (d.held_as == wishes[i].as) continue;
      d.held_as = wishes[i].as;
      d.since_ms = view.now_ms;
      ++changes;
    }
    return wishes;
  }
  void lasts(std::int64_t& since, bool still) const {
    if (!still)
      since = -1;
    else if (since < 0)
      since = view.now_ms;
  }
  void pass(std::int64_t ms) {
    for (; ms > 0; ms -= tick_ms) look();
  }
  std::string roles() const {
    std::string text;
    for (const auto& d : view.devices)
      text += (text.empty() ? "" : " ") + std::string(name_of(d.held_as));
    return text;
  }
};

}  // namespace

TEST_CASE("without a job everything serves, whatever the policy") {
  for (const auto kind :
       {policy_kind::latency_first, policy_kind::train_first, policy_kind::fixed}) {
    cluster c(3, role::idle);
    c.settings.kind = kind;
    c.view.training = {};
    c.look();
    CHECK(c.roles() == "serve serve serve");
  }
}

TEST_CASE("an idle service shares what must serve and gives the rest to the job") {
  cluster c(3);
  c.pass(2500);
  CHECK(c.roles() == "shared train train");
  c.settings.min_serve_devices = 2;
  c.look();
  CHECK(c.roles() == "shared shared train");
}

TEST_CASE("a sole device is shared while a job is there, under every policy") {
  for (const auto kind :
       {policy_kind::latency_first, policy_kind::train_first, policy_kind::fixed}) {
    cluster c(1);
    c.settings.kind = kind;
    c.pass(2500);
    CHECK(c.roles() == "shared");
    c.view.service.waiting_ms = 5000;
    c.pass(1000);
    CHECK(c.roles() == "shared");
  }
}

TEST_CASE("a burst brings every device back within one look, and the numbers say why") {
  cluster c(4);
  c.pass(3000);
  REQUIRE(c.roles() == "shared train train train");
  c.view.service.waiting_ms = 1200;
  const auto wishes = c.look();
  CHECK(c.roles() == "shared shared shared shared");
  CHECK(wishes[1].why == "the oldest request waits 1200 ms, target 500 ms");
  CHECK(std::find(wishes[1].given.begin(), wishes[1].given.end(),
                  std::pair<std::string, double>{"waiting_ms", 1200.0}) != wishes[1].given.end());
  c.look();
  CHECK(c.roles() == "serve serve serve serve");
}

TEST_CASE("a small threat takes one device at a time, those that train alone first") {
  cluster c(3);
  c.pass(3000);
  REQUIRE(c.roles() == "shared train train");
  c.view.service.waiting_ms = 300;
  c.look();
  CHECK(c.roles() == "shared shared train");
  c.look();
  CHECK(c.roles() == "shared shared shared");
  c.look();  // between steps training holds up nothing: that costs training nothing yet
  CHECK(c.roles() == "shared shared shared");
  c.view.service.waiting_ms = 400;
  c.look();
  CHECK(c.roles() == "serve shared shared");
}

TEST_CASE("a percentile judges the last move only once its window has passed") {
  cluster c(3);
  c.pass(3000);
  c.view.service.requests = 5;
  c.view.service.itl_ms = 95;
  c.view.now_ms += 1000;
  c.look();
  CHECK(c.roles() == "shared shared train");
  c.pass(900);
  CHECK(c.roles() == "shared shared train");
  c.look();
  CHECK(c.roles() == "shared shared shared");
}

TEST_CASE("quiet returns the devices to training after the cooldown, one at a time") {
  cluster c(3);
  c.settings.cooldown_ms = 2000;
  c.view.service.waiting_ms = 1000;
  c.pass(500);
  REQUIRE(c.roles() == "serve serve serve");
  c.view.service = {};
  c.pass(300);
  CHECK(c.roles() == "serve serve serve");
  c.look();
  CHECK(c.roles() == "shared shared shared");
  c.pass(1600);
  CHECK(c.roles() == "shared shared shared");
  c.look();
  CHECK(c.roles() == "shared shared train");
  c.look();
  CHECK(c.roles() == "shared train train");
  c.changes = 0;
  c.pass(60'000);
  CHECK(c.changes == 0);
}

TEST_CASE("regrets double the cooldown, up to four times it") {
  for (const auto& [regrets, ms] : {std::pair{1, 4000}, {2, 8000}, {9, 8000}}) {
    cluster c(2);
    c.view.regrets = regrets;
    c.view.calm_since_ms = 0;
    c.pass(ms - tick_ms);
    CHECK(c.roles() == "shared shared");
    c.look();
    CHECK(c.roles() == "shared train");
  }
}

TEST_CASE("a device is not given away when the others could not hold the targets without it") {
  cluster c(2, role::shared);
  c.view.service.requests = 9;
  c.view.service.ttft_ms = 210;  // calm, and 420 of 500 on one device
  c.view.devices[0].running = 2;
  c.pass(10'000);
  CHECK(c.roles() == "shared shared");
  c.view.service.ttft_ms = 150;
  c.pass(100);
  CHECK(c.roles() == "shared train");
}

TEST_CASE("a device is not given away while the others would be too busy without it") {
  cluster c(3, role::shared);
  for (auto& d : c.view.devices) d.busy = 0.5;
  c.view.devices[0].running = 2;
  c.pass(10'000);
  CHECK(c.roles() == "shared shared shared");
  for (auto& d : c.view.devices) d.busy = 0.39;
  c.pass(100);
  CHECK(c.roles() == "shared shared train");
  c.pass(10'000);  // 78 % of one device
  CHECK(c.roles() == "shared shared train");
}

TEST_CASE("load that threatens nobody trains between the steps, however long it lasts") {
  cluster c(2);
  for (auto& d : c.view.devices) d.busy = 0.9, d.running = 4;
  c.view.service = {10, 300, 80, 150};  // neither calm nor a threat
  c.pass(500);
  CHECK(c.roles() == "shared shared");
  c.changes = 0;
  c.pass(60'000);
  CHECK(c.changes == 0);
}

TEST_CASE("between the thresholds nothing moves") {
  cluster c(3);
  c.pass(3000);
  c.view.service = {10, 300, 70, 0};
  c.changes = 0;
  c.pass(30'000);
  CHECK(c.changes == 0);
}

TEST_CASE("train_first and fixed do not follow the load") {
  cluster first(3);
  first.settings.kind = policy_kind::train_first;
  first.look();
  CHECK(first.roles() == "shared train train");
  cluster fixed(3);
  fixed.settings.kind = policy_kind::fixed;
  fixed.look();
  CHECK(fixed.roles() == "serve train train");
  for (auto* c : {&first, &fixed}) {
    const auto before = c->roles();
    c->view.service.waiting_ms = 10'000;
    c->pass(3000);
    CHECK(c->roles() == before);
  }
}

TEST_CASE("no more devices train than allowed, and those where the job is not open never do") {
  cluster c(4);
  c.settings.max_train_devices = 2;
  c.view.devices[3].resident = false;
  c.pass(3000);
  CHECK(c.roles() == "serve train train serve");
}

TEST_CASE("an order by hand holds against the load, as far as the fewest serving devices allow") {
  cluster c(2);
  c.view.devices[0].pin = role::train;
  c.view.service.waiting_ms = 5000;
  c.pass(500);
  CHECK(c.roles() == "train serve");
  c.view.devices[1].pin = role::train;
  const auto wishes = c.look();
  CHECK(c.roles() == "train shared");
  CHECK(wishes[1].why == "ordered by hand to train, but 1 of 2 devices must serve");
}

TEST_CASE(
    "whatever comes, the bounds hold, constant load settles, and the same view is decided "
    "alike") {
  const auto seed = GENERATE(range(0U, 300U));
  CAPTURE(seed);
  std::mt19937 random(seed);
  const auto upto = [&](int most) { return static_cast<int>(random() % (1U + unsigned(most))); };
  cluster c(1 + upto(7));
  const int devices = static_cast<int>(c.view.devices.size());
  c.settings.kind = static_cast<policy_kind>(upto(2));
  c.settings.min_serve_devices = 1 + upto(devices - 1);
  c.settings.max_train_devices = upto(devices);
  c.settings.cooldown_ms = upto(3000);
  for (auto& d : c.view.devices) {
    d.resident = upto(3) != 0;
    d.held_as = static_cast<role>(upto(3));
    if (upto(4) == 0) d.pin = static_cast<role>(1 + upto(2));
  }
  const int most_train = c.settings.max_train_devices > 0 ? c.settings.max_train_devices : devices;
  for (int phase = 0; phase < 6; ++phase) {
    c.view.service = {upto(5), double(upto(1000)), double(upto(200)), double(upto(1000))};
    if (upto(1) == 0) c.view.service = {};
    for (auto& d : c.view.devices) {
      d.running = upto(4);
      d.queued = upto(3) == 0 ? upto(4) : 0;
    }
    c.changes = 0;
    for (int i = 0; i < 200; ++i) {
      const auto again = decide(c.settings, c.view);
      const auto twice = decide(c.settings, c.view);
      for (std::size_t d = 0; d < again.size(); ++d) CHECK(again[d].as == twice[d].as);
      const auto wishes = c.look();
      int serving = 0, training = 0;
      for (std::size_t d = 0; d < wishes.size(); ++d) {
        serving += serves(wishes[d].as);
        training += trains(wishes[d].as);
        if (!c.view.devices[d].resident) CHECK_FALSE(trains(wishes[d].as));
      }
      CHECK(serving >= c.settings.min_serve_devices);
      CHECK(training <= most_train);
    }
    CHECK(c.changes <= 3 * devices);
  }
}

TEST_CASE("an impossible order by hand is refused with what would be allowed") {
  cluster c(2);
  const auto refusal = [&](std::string_view device, std::optional<role> as) {
    const auto checked = check_pin(c.settings, c.view, device, as);
    REQUIRE_FALSE(checked);
    return checked.error();
  };
  CHECK(check_pin(c.settings, c.view, "cpu:1", role::train));
  CHECK(check_pin(c.settings, c.view, "cpu:1", std::nullopt));
  CHECK(refusal("cpu:9", role::serve) ==
        error{errc::not_found, "no device 'cpu:9': there is cpu:0, cpu:1", "device"});
  CHECK(refusal("cpu:0", role::idle).code == errc::bad_request);
  c.view.devices[1].pin = role::train;
  CHECK(refusal("cpu:0", role::train) ==
        error{errc::conflict,
              "1 of 2 devices must serve (min_serve_devices), so at most 1 may train alone (1 "
              "ordered to train already: cpu:1): give shared, or send another one back first",
              "role"});
  c.settings.max_train_devices = 1;
  CHECK(refusal("cpu:0", role::shared) ==
        error{errc::conflict,
              "at most 1 may train or share (max_train_devices), and 1 is ordered so already: "
              "cpu:1; send one back first, or give serve",
              "role"});
  c.view.devices[0].resident = false;
  CHECK(refusal("cpu:0", role::shared).detail ==
        "ftjob-1 is not open on cpu:0: it can train on cpu:1");
  c.view.training = {};
  CHECK(refusal("cpu:1", role::train).code == errc::conflict);
}

TEST_CASE("impossible settings of a policy are refused with the field and its bounds") {
  policy_settings s;
  CHECK(check_policy(s));
  s.min_serve_devices = 0;
  CHECK(check_policy(s).error() == error{errc::bad_request,
                                         "min_serve_devices: 0 is out of range: give 1 to 1048576",
                                         "min_serve_devices"});
  s = {};
  s.itl_target_ms = -1;
  CHECK(check_policy(s).error().param == "itl_target_ms");
}
