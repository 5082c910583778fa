// /admin/leases, its history, and orders by hand.
#include "gateway/leases/lease_metrics.hpp"
#include "tests/support/gateway_world.hpp"

using namespace tandem;
using namespace tandem::test;
using lease::role;

TEST_CASE("leases shows who holds each device, why, and what is on its way") {
  gateway_world world;
  world.leases->put(two_devices());
  const auto to = world.call("GET", "/admin/leases");
  CHECK(to->status == 200);
  CHECK(to->header("cache-control") == "no-store");
  const auto body = json(to->body);
  CHECK(number_at(body, "epoch") == 9);
  CHECK(text_at(body, "policy.name") == "latency_first");
  CHECK(number_at(body, "policy.ttft_target_ms") == 500);
  CHECK(text_at(body, "devices.0.device") == "cpu:0");
  CHECK(text_at(body, "devices.0.role") == "serve");
  CHECK(text_at(body, "devices.0.holder") == "serve bytes");
  CHECK(at(body, "devices.0.job").is_null());
  CHECK(at(body, "devices.0.pin").is_null());
  CHECK(at(body, "devices.0.moving_to").is_null());
  CHECK(text_at(body, "devices.0.why") == "ttft 610 ms is above 500 ms");
  CHECK(number_at(body, "devices.0.running") == 3);
  CHECK(*at(body, "devices.0.busy").if_double() == 0.75);
  CHECK(number_at(body, "devices.0.since_ms") == 1'764'104'040'000);
  CHECK(number_at(body, "devices.0.memory_used") == 400'000);
  CHECK(text_at(body, "devices.1.job") == "ftjob-1");
  CHECK(text_at(body, "devices.1.pin") == "train");
  CHECK(text_at(body, "devices.1.moving_to") == "shared");
  CHECK(*at(body, "devices.1.resident").if_bool());
  CHECK(*at(body, "service.ttft_ms").if_double() == 120.5);
  CHECK(number_at(body, "jobs.0.step_count") == 12);
  CHECK(number_at(body, "moves") == 9);
  CHECK(number_at(body, "refusals") == 1);
}

TEST_CASE("before the first lease the platform says that it is not there yet") {
  gateway_world world;
  check_refused(*world.call("GET", "/admin/leases"), 503, "", "no device has been lent yet");
  check_refused(*world.call("GET", "/admin/policy"), 503, "", "no device has been lent yet");
}

TEST_CASE("history is newest first, by device, and of each move says how long it took") {
  gateway_world world;
  world.leases->add(move_of("cpu:0", role::idle, role::serve, 1));
  world.leases->add(move_of("cpu:1", role::idle, role::serve, 2));
  world.leases->add(move_of("cpu:1", role::serve, role::train, 3));
  world.leases->complete(2, 800, 1900);
  auto body = json(world.call("GET", "/admin/leases/history?device=cpu:1&limit=1")->body);
  CHECK(text_at(body, "object") == "list");
  CHECK(number_at(body, "data.0.sequence") == 3);
  CHECK(text_at(body, "data.0.from") == "serve");
  CHECK(text_at(body, "data.0.to") == "train");
  CHECK(*at(body, "data.0.numbers.busy").if_double() == 0.25);
  CHECK(at(body, "data.0.held_after_us").is_null());
  CHECK(*at(body, "has_more").if_bool());
  body = json(world.call("GET", "/admin/leases/history?after=1")->body);
  CHECK(at(body, "data").if_array()->size() == 2);
  CHECK(number_at(body, "data.1.held_after_us") == 800);
  CHECK(number_at(body, "data.1.first_work_after_us") == 1900);
  CHECK_FALSE(*at(body, "has_more").if_bool());
}

TEST_CASE("a history without bounds, or behind what is no number, is refused with the bounds") {
  gateway_world world;
  check_refused(*world.call("GET", "/admin/leases/history?limit=0"), 400, "limit", "1 to 1000");
  check_refused(*world.call("GET", "/admin/leases/history?limit=1001"), 400, "limit", "1 to 1000");
  check_refused(*world.call("GET", "/admin/leases/history?after=-1"), 400, "after", "'-1'");
}

TEST_CASE("an assign is answered with the lease as it is and what was ordered") {
  gateway_world world;
  const auto to = world.post("/admin/assign", R"({"device":"cpu:0","role":"train"})");
  CHECK(to->status == 200);
  const auto body = json(to->body);
  CHECK(text_at(body, "device") == "cpu:0");
  CHECK(text_at(body, "role") == "serve");
  CHECK(text_at(body, "ordered") == "train");
  CHECK(number_at(body, "epoch") == 7);
  world.post("/admin/assign", R"({"device":"cpu:0","role":"auto"})");
  REQUIRE(world.control->assigned.size() == 2);
  CHECK(world.control->assigned[0].second == role::train);
  CHECK(world.control->assigned[1].second == std::nullopt);
}

TEST_CASE("an assign that cannot be is refused with what the coordinator says") {
  gateway_world world;
  world.control->refusal = {errc::not_found, "no device cpu:7; there are cpu:0 and cpu:1", ""};
  check_refused(*world.post("/admin/assign", R"({"device":"cpu:7","role":"serve"})"), 404, "",
                "there are cpu:0 and cpu:1");
  world.control->refusal = {errc::conflict, "1 device must serve: cpu:0 is the only one", ""};
  check_refused(*world.post("/admin/assign", R"({"device":"cpu:0","role":"train"})"), 409, "",
                "the only one");
}

TEST_CASE("an assign that makes no sense reaches nobody") {
  gateway_world world;
  const auto refused = [&](const std::string& body, const std::string& param,
                           const std::string& why) {
    check_refused(*world.post("/admin/assign", body), 400, param, why);
  };
  refused("", "", "could not parse");
  refused("[]", "", "one JSON object");
  refused("{}", "device", "Missing");
  refused(R"({"device":"cpu:0"})", "role", "Missing");
  refused(R"({"device":7,"role":"serve"})", "device", "expected a string");
  refused(R"({"device":"","role":"serve"})", "device", "cpu:0");
  refused(R"({"device":"cpu:0","role":"idle"})", "role", "'serve', 'train', 'shared' or 'auto'");
  refused(R"({"device":"cpu:0","rol":"serve"})", "rol", "did you mean 'role'?");
  CHECK(world.control->assigned.empty());
}

TEST_CASE("a policy changes in what the body names, and in nothing else") {
  gateway_world world;
  auto report = two_devices();
  report.policy.cooldown_ms = 750;
  world.leases->put(report);
  CHECK(number_at(json(world.call("GET", "/admin/policy")->body), "cooldown_ms") == 750);
  const auto to = world.post("/admin/policy", R"({"name":"train_first","ttft_target_ms":300})");
  CHECK(to->status == 200);
  CHECK(text_at(json(to->body), "name") == "train_first");
  REQUIRE(world.control->policies.size() == 1);
  auto wanted = report.policy;
  wanted.kind = lease::policy_kind::train_first;
  wanted.ttft_target_ms = 300;
  CHECK(world.control->policies.front() == wanted);
}

TEST_CASE("a policy that cannot be is refused with the numbers") {
  gateway_world world;
  world.leases->put(two_devices());
  const auto refused = [&](const std::string& body, int status, const std::string& param,
                           const std::string& why) {
    check_refused(*world.post("/admin/policy", body), status, param, why);
  };
  refused(R"({"ttft_target_ms":0})", 400, "ttft_target_ms", ">= 1, but got 0");
  refused(R"({"itl_target_ms":3600001})", 400, "itl_target_ms", "<= 3600000, but got 3600001");
  refused(R"({"cooldown_ms":1.5})", 400, "cooldown_ms", "expected an integer");
  refused(R"({"name":"fair"})", 400, "name", "'latency_first', 'train_first' or 'fixed'");
  refused(R"({"cooldwn_ms":5})", 400, "cooldwn_ms", "did you mean 'cooldown_ms'?");
  refused(R"({"min_serve_devices":3})", 409, "min_serve_devices", "more than the 2 devices");
  CHECK(world.control->policies.empty());
}

TEST_CASE("leases belong to the admin plane") {
  gateway_world world;
  int found = 0;
  for (const auto& route : world.routes.routes()) {
    if (route.path.find("/admin/") != 0) continue;
    CHECK(route.needs == gateway::access::admin);
    ++found;
  }
  CHECK(found == 2 + 6);
}

TEST_CASE("the series name every device's role, the targets and the jobs") {
  actors::lease_board board;
  CHECK(gateway::lease_metrics(board).empty());
  auto report = two_devices();
  report.devices[1].held.device = "a\"b\\c";
  board.put(report);
  board.add(move_of("cpu:0", role::serve, role::train, 3));
  board.complete(3, 800, -1);
  board.complete(3, 800, 2000);
  board.complete(3, 800, 2000);  // told twice, counted once
  const auto text = gateway::lease_metrics(board);
  for (const std::string line :
       {R"(tandem_device_role{device="cpu:0",role="serve"} 1)",
        R"(tandem_device_role{device="cpu:0",role="train"} 0)",
        R"(tandem_device_role{device="a\"b\\c",role="train"} 1)",
        R"(tandem_device_busy_ratio{device="cpu:0"} 0.75)",
        R"(tandem_device_moves_total{device="cpu:0"} 4)", "tandem_lease_moves_total 9",
        "tandem_lease_refusals_total 1", "tandem_move_seconds_count 1",
        "tandem_move_seconds_sum 0.002", "tandem_ttft_target_seconds 0.5",
        R"(tandem_training_step{job="ftjob-1"} 3)", R"(tandem_training_loss{job="ftjob-1"} 2.5)",
        R"(tandem_training_tokens_total{job="ftjob-1"} 900)",
        R"(tandem_training_working_devices{job="ftjob-1"} 1)"}) {
    INFO(line << "\n" << text);
    CHECK(text.find("\n" + line + "\n") != std::string::npos);
  }
}
