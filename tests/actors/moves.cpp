// Devices that change between serving and training while both run: the GPU actor's side, and the
// serve coordinator's with a hand on every lease.
#include "tests/support/actor_world.hpp"

#include <catch2/catch.hpp>

#include <random>

using namespace tandem;
using namespace tandem::test;
using namespace std::chrono_literals;
using lease::role;
using serve::finish_reason;

namespace {

lease::lease lease_of(const std::string& device, role as, lease::epoch at, lease::epoch serve_since,
                      lease::epoch train_since) {
  lease::lease made{device, as, "", at, "", serve_since, train_since};
  if (lease::serves(as)) made.holder = "serve fake";
  if (as == role::train) made.holder = "job 1";
  if (as == role::shared) made.guest = "job 1";
  return made;
}

// --- one device ---------------------------------------------------------------------------------

class device_world : public actor_world {
 public:
  explicit device_world(fake_device_script script = {}) : self(system()) {
    device = house(system().spawn(actors::gpu, std::make_unique<fake_device>("cpu:0", script)));
  }
  void lend(role as, lease::epoch at, lease::epoch serve_since, lease::epoch train_since) {
    self->send(device, actors::take_lease{lease_of("cpu:0", as, at, serve_since, train_since)});
    settle();
  }
  void open_job(lease::epoch at) {
    train::open_order open;
    open.job = "job 1";
    self->send(device, actors::open_training{at, open});
  }
  auto train(lease::epoch at) {
    train::order order;
    order.job = "job 1";
    order.step = 1;
    auto asked = self->request(device, caf::infinite, actors::run_training{at, order});
    settle();
    return asked;
  }

  caf::scoped_actor self;
  actors::gpu_actor device;
};

template <class Fact, class Asked>
error refusal_of(Asked& asked) {
  error why{errc::internal, "not refused", ""};
  asked.receive([](const Fact&) {}, [&](const caf::error& e) { why = actors::from_caf(e); });
  return why;
}

}  // namespace

TEST_CASE(
    "an order of training is kept while its device serves, and goes on when it trains again") {
  int pieces = 0;
  device_world* at_work = nullptr;
  fake_device_script script;
  script.training.pieces = 5;
  script.training.between_pieces = [&] {
    if (++pieces == 2)
      caf::anon_send(at_work->device, actors::take_lease{lease_of("cpu:0", role::serve, 2, 2, 0)});
  };
  device_world world(script);
  at_work = &world;
  world.lend(role::train, 1, 0, 1);
  world.open_job(1);
  auto order = world.train(1);
  CHECK(pieces == 2);
  world.lend(role::train, 3, 0, 3);
  CHECK(pieces == 5);
  bool done = false;
  order.receive([&](const train::outcome& made) { done = made.step == 1; },
                [](const caf::error& why) { FAIL(actors::from_caf(why).detail); });
  CHECK(done);
}

TEST_CASE("an order that is kept can be dropped, and is answered before the drop") {
  device_world* at_work = nullptr;
  fake_device_script script;
  script.training.pieces = 5;
  script.training.between_pieces = [&] {
    caf::anon_send(at_work->device, actors::take_lease{lease_of("cpu:0", role::serve, 2, 2, 0)});
  };
  device_world world(script);
  at_work = &world;
  world.lend(role::train, 1, 0, 1);
  world.open_job(1);
  auto order = world.train(1);
  auto drop = world.self->request(world.device, caf::infinite, actors::drop_training{1, "job 1"});
  world.settle();
  CHECK(refusal_of<train::outcome>(order).code == errc::cancelled);
  bool dropped = false;
  drop.receive([&] { dropped = true; },
               [](const caf::error& why) { FAIL(actors::from_caf(why).detail); });
  CHECK(dropped);
}

TEST_CASE("a job that opens where another's order is kept takes its place") {
  device_world* at_work = nullptr;
  fake_device_script script;
  script.training.pieces = 5;
  script.training.between_pieces = [&] {
    caf::anon_send(at_work->device, actors::take_lease{lease_of("cpu:0", role::serve, 2, 2, 0)});
  };
  device_world world(script);
  at_work = &world;
  world.lend(role::train, 1, 0, 1);
  world.open_job(1);
  auto order = world.train(1);
  auto open = world.self->request(world.device, caf::infinite, actors::open_training{2, {}});
  world.settle();
  CHECK(refusal_of<train::outcome>(order).code == errc::cancelled);
  bool opened = false;
  open.receive([&](const actors::training_opened&) { opened = true; },
               [](const caf::error& why) { FAIL(actors::from_caf(why).detail); });
  CHECK(opened);
}

TEST_CASE("a job is opened between steps, which do not wait for it") {
  bool stepped = false;
  fake_device_script script;
  script.between_pieces = [&] { stepped = true; };
  script.training.opens_when = [&] { return stepped; };
  device_world world(script);
  world.lend(role::shared, 1, 1, 1);
  world.self->send(world.device, actors::load_model{1, {}});
  auto open = world.self->request(world.device, caf::infinite, actors::open_training{1, {}});
  auto step = world.self->request(world.device, caf::infinite, actors::run_step{1, {}});
  world.settle();
  step.receive([](const serve::step_result&) {},
               [](const caf::error& why) { FAIL(actors::from_caf(why).detail); });
  bool opened = false;
  open.receive([&](const actors::training_opened&) { opened = true; },
               [](const caf::error& why) { FAIL(actors::from_caf(why).detail); });
  CHECK(opened);
}

TEST_CASE("a job that is being opened can be closed, or opened anew") {
  bool may_open = false;
  fake_device_script script;
  script.training.opens_when = [&] { return may_open; };
  device_world world(script);
  world.lend(role::train, 1, 0, 1);
  train::open_order wanted;
  wanted.job = "job 1";
  auto first = world.self->request(world.device, caf::infinite, actors::open_training{1, wanted});
  SECTION("closed") {
    world.self->send(world.device, actors::close_training{1, "job 1"});
    world.settle();
    CHECK(refusal_of<actors::training_opened>(first).code == errc::cancelled);
  }
  SECTION("opened anew") {
    auto second =
        world.self->request(world.device, caf::infinite, actors::open_training{1, wanted});
    world.self->send(world.device, actors::close_training{1, "another job"});
    may_open = true;
    world.settle();
    bool opened = false;
    second.receive([&](const actors::training_opened&) { opened = true; },
                   [](const caf::error& why) { FAIL(actors::from_caf(why).detail); });
    CHECK(opened);
  }
}

TEST_CASE("a version is read between steps, and given up when it is withdrawn") {
  bool stepped = false;
  bool may_load = false;
  fake_device_script script;
  script.between_pieces = [&] { stepped = true; };
  script.loads_version_when = [&] { return may_load && stepped; };
  device_world world(script);
  world.lend(role::serve, 1, 1, 0);
  world.self->send(world.device, actors::load_model{1, {}});
  auto load =
      world.self->request(world.device, caf::infinite, actors::load_version{1, 7, "step-3", 3});
  SECTION("read") {
    may_load = true;
    world.self->send(world.device, actors::remove_version{1, 6});
    auto step = world.self->request(world.device, caf::infinite, actors::run_step{1, {}});
    world.settle();
    step.receive([](const serve::step_result&) {},
                 [](const caf::error& why) { FAIL(actors::from_caf(why).detail); });
    bool read = false;
    load.receive([&](const serve::device_facts&) { read = true; },
                 [](const caf::error& why) { FAIL(actors::from_caf(why).detail); });
    CHECK(read);
  }
  SECTION("withdrawn") {
    world.self->send(world.device, actors::remove_version{1, 7});
    world.settle();
    CHECK(refusal_of<serve::device_facts>(load).code == errc::cancelled);
  }
}

TEST_CASE("between two steps of a shared device training runs as far as the next one allows") {
  int pieces = 0;
  fake_device_script script;
  script.training.pieces = 100;
  script.training.piece_time = 30ms;
  script.training.between_pieces = [&] { ++pieces; };
  device_world world(script);
  world.lend(role::shared, 1, 1, 1);
  world.self->send(world.device, actors::load_model{1, {}});
  world.open_job(1);
  (void)world.train(1);
  world.pass(30ms);
  REQUIRE(pieces == 2);
  auto left_of_piece = 30ms;
  const auto step = [&](std::int64_t gap_ns) {
    auto asked = world.self->request(world.device, caf::infinite, actors::run_step{1, {}, gap_ns});
    world.settle();
    world.pass(std::exchange(left_of_piece, 0ms));
    asked.receive([](const serve::step_result&) {},
                  [](const caf::error& why) { FAIL(actors::from_caf(why).detail); });
  };
  SECTION("a piece is too long for the gap: the next step finds the device free, if it comes") {
    step(20'000'000);
    CHECK(pieces == 2);
    step(20'000'000);
    CHECK(pieces == 2);
    world.pass(10ms);  // no further step came
    CHECK(pieces == 3);
  }
  SECTION("a piece fits: it runs in every gap") {
    step(40'000'000);
    CHECK(pieces == 3);
    left_of_piece = 30ms;
    step(40'000'000);
    CHECK(pieces == 4);
  }
}

TEST_CASE("an order of training is refused in any tenure but its own") {
  device_world world;
  world.lend(role::train, 1, 0, 1);
  world.open_job(1);
  world.lend(role::serve, 2, 2, 0);
  auto early = world.train(1);
  CHECK(refusal_of<train::outcome>(early).detail ==
        "an order of training of epoch 1 came to a device that does not");
  world.lend(role::train, 3, 0, 3);
  auto late = world.train(1);
  CHECK(refusal_of<train::outcome>(late).detail ==
        "an order of training of epoch 1 came in epoch 3");
}

TEST_CASE("versions are added to a device that trains") {
  device_world world;
  world.lend(role::serve, 1, 1, 0);
  world.self->send(world.device, actors::load_model{1, {}});
  world.lend(role::train, 2, 0, 2);
  auto added = world.self->request(world.device, caf::infinite,
                                   actors::add_version{2, 1, {7, nullptr, nullptr}});
  world.settle();
  bool there = false;
  added.receive([&](const serve::device_facts&) { there = true; },
                [](const caf::error& why) { FAIL(actors::from_caf(why).detail); });
  CHECK(there);
}

// --- lanes --------------------------------------------------------------------------------------

namespace {

// The test is the coordinator: it lends, asks back and gives away, device by device.
class moves_world : public serving_world {
 public:
  moves_world(std::vector<std::string> names, fake_device_script script,
              actors::serve_options options = {})
      : serving_world({}, script, std::move(options)), self(system()) {
    for (const auto& name : names) {
      devices[name] =
          house(system().spawn(actors::gpu, std::make_unique<fake_device>(name, script)));
      lend(name, role::serve);
    }
    settle();
  }

  void lend(const std::string& name, role as) {
    const auto at = ++epoch;
    auto& held = leases[name];
    const bool served = lease::serves(held.held_as);
    held = lease_of(name, as, at, lease::serves(as) ? (served ? held.serve_since : at) : 0,
                    lease::trains(as) ? at : 0);
    self->send(devices[name], actors::take_lease{held});
    settle_device();
    if (!lease::serves(as)) return;
    if (served)
      self->send(serve_coordinator, actors::lease_changed{held});
    else
      self->send(serve_coordinator, actors::lease_granted{held, {}, devices[name]});
  }
  void ask_back(const std::string& name) {
    releasing = name;
    self->send(serve_coordinator, actors::release_device{leases[name]});
  }
  // The answer to the newest ask_back, once it is there.
  std::optional<actors::device_released> released() {
    std::optional<actors::device_released> got;
    self->receive([&](const actors::device_released& fact) { got = fact; },
                  [&](const caf::error& why) { refused = actors::from_caf(why); },
                  caf::after(0s) >> [] {});
    return got;
  }
  // So many messages, whoever they are for.
  void run(int messages) {
    for (int i = 0; i < messages && scheduler().try_run_once(); ++i) {
    }
  }
  void run_until(serve::request_id id, std::size_t tokens) {
    while (replies[{id, 0}].tokens.size() < tokens) REQUIRE(scheduler().try_run_once());
  }
  void check_texts(int count, int length) {
    for (int i = 1; i <= count; ++i) {
      CAPTURE(i);
      auto& told = replies[{static_cast<serve::request_id>(i), 0}];
      CHECK(told.tokens == expected_tokens({i, 7, 7}, length));
      CHECK(told.finishes == 1);
    }
  }

  caf::scoped_actor self;
  std::map<std::string, actors::gpu_actor> devices;
  std::map<std::string, lease::lease> leases;
  lease::epoch epoch = 0;
  std::string releasing;
  std::optional<error> refused;

 private:
  // Lease answers and first pieces are of no interest here.
  void settle_device() {
    self->receive_while([this] { return !self->mailbox().empty(); })(
        [](const actors::lease_taken&) {}, [](const actors::work_began&) {},
        [](const actors::device_released&) {}, [](const caf::error&) {});
  }
};

}  // namespace

TEST_CASE(
    "a device that is asked back hands its streams over, and each text is its undisturbed one") {
  moves_world world({"cpu:0", "cpu:1"}, {});
  for (int i = 1; i <= 12; ++i)
    world.ask(request_of(static_cast<serve::request_id>(i), {i, 7, 7}, 40));
  world.run_until(1, 9);
  world.ask_back("cpu:0");
  std::optional<actors::device_released> answer;
  while (!(answer = world.released())) REQUIRE(world.scheduler().try_run_once());
  CHECK(answer->handed_over == 6);
  CHECK(answer->finished == 0);
  world.lend("cpu:0", role::train);
  world.settle();
  world.check_texts(12, 40);
  CHECK(world.board->newest()->devices_lost == 0);
}

TEST_CASE("a lane that comes back takes its share of what runs, and nothing is computed again") {
  int rows = 0;
  fake_device_script script;
  script.lends_kv = true;
  script.watch = [&](const serve::step_plan& plan) { rows += plan.rows(); };
  moves_world world({"cpu:0", "cpu:1"}, script);
  world.ask_back("cpu:1");
  world.settle();
  world.lend("cpu:1", role::train);
  for (int i = 1; i <= 8; ++i)
    world.ask(request_of(static_cast<serve::request_id>(i), {i, 7, 7}, 40));
  world.run_until(1, 9);
  world.lend("cpu:1", role::serve);
  world.run_until(1, 12);
  const auto lanes = world.board->newest()->lanes;
  REQUIRE(lanes.size() == 2);
  world.settle();
  world.check_texts(8, 40);
  CHECK(world.board->newest()->lanes[1].rows > 4 * 25);  // half of them, from there on
  CHECK(rows == 8 * (3 + 39));
}

TEST_CASE("the last lane finishes its requests before it lets go, and takes new ones meanwhile") {
  moves_world world({"cpu:0"}, {});
  world.ask(request_of(1, {1, 7, 7}, 40));
  world.run_until(1, 9);
  world.ask_back("cpu:0");
  world.run(10);
  world.ask(request_of(2, {2, 7, 7}, 40));
  world.settle();
  const auto answer = world.released();
  REQUIRE(answer);
  CHECK(answer->finished == 2);
  CHECK(answer->handed_over == 0);
  world.check_texts(2, 40);
}

TEST_CASE("a lane that is lent again while it leaves takes the order back") {
  moves_world world({"cpu:0"}, {});
  world.ask(request_of(1, {1, 7, 7}, 40));
  world.run_until(1, 9);
  world.ask_back("cpu:0");
  world.run(5);
  world.self->send(world.serve_coordinator, actors::lease_changed{world.leases["cpu:0"]});
  world.settle();
  CHECK_FALSE(world.released());
  REQUIRE(world.refused);
  CHECK(world.refused->code == errc::cancelled);
  world.check_texts(1, 40);
}

TEST_CASE("streams outlive 200 random moves of three devices") {
  std::mt19937 random(5);
  fake_device_script script;
  script.kv_blocks = 40;
  script.lends_kv = GENERATE(false, true);
  moves_world world({"cpu:0", "cpu:1", "cpu:2"}, script);
  int asked = 0;
  std::optional<std::string> leaving;
  for (int move = 0; move < 200; ++move) {
    while (asked < 4 + move / 2) {
      ++asked;
      world.ask(request_of(static_cast<serve::request_id>(asked), {asked, 7, 7}, 40));
    }
    const auto name = "cpu:" + std::to_string(random() % 3);
    int serving = 0;
    for (const auto& [device, held] : world.leases) serving += lease::serves(held.held_as) ? 1 : 0;
    if (!lease::serves(world.leases[name].held_as)) {
      world.lend(name, random() % 2 == 0 ? role::serve : role::shared);
    } else if (serving > 1) {
      world.ask_back(name);
      std::optional<actors::device_released> answer;
      while (!(answer = world.released())) REQUIRE(world.scheduler().try_run_once());
      world.lend(name, role::train);
    } else {
      world.lend(name, role::serve);
    }
    world.run(static_cast<int>(random() % 60));
  }
  world.settle();
  world.check_texts(asked, 40);
  CHECK(world.board->newest()->devices_lost == 0);
}

TEST_CASE("a device that dies while it leaves costs no request") {
  moves_world world({"cpu:0", "cpu:1"}, {});
  for (int i = 1; i <= 8; ++i)
    world.ask(request_of(static_cast<serve::request_id>(i), {i, 7, 7}, 40));
  world.run_until(1, 9);
  world.ask_back("cpu:0");
  caf::anon_send_exit(world.devices["cpu:0"], caf::exit_reason::kill);
  world.settle();
  world.check_texts(8, 40);
}
