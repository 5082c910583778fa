// Actors of different processes behave as those of one do.
#include "runtime/transport/control_lane.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/link_world.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <optional>

using namespace tandem;
using namespace tandem::test;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

namespace {

const std::vector<std::string> both = {"posix,self", "tcp,self"};
constexpr auto patience = 20s;

struct settings_of_node {
  std::string transports = "posix,self";
  std::string listen = "127.0.0.1:0";
  std::string silent_after_ms = "10000";
  std::string secret = "-";
};

class other_node : public child_process {
 public:
  explicit other_node(const settings_of_node& with = {})
      : child_process(
            {TANDEM_LINK_NODE, with.listen, with.transports, with.silent_after_ms, with.secret}) {
    const auto where = line("listening ");
    REQUIRE(where);
    address = *where;
  }
  std::string address;
};

transport::fabric_options options_of(const settings_of_node& with) {
  transport::fabric_options options;
  options.listen = with.listen;
  options.transports = with.transports;
  options.silent_after = std::chrono::milliseconds(std::stol(with.silent_after_ms));
  if (with.secret != "-") options.secret = with.secret;
  return options;
}

struct loaded_config : link_config {
  explicit loaded_config(transport::fabric_options options) {
    add_message_type<unknown_there>("test::unknown_there");
    const auto loaded = actors::load_link(*this, std::move(options));
    INFO((loaded ? "" : loaded.error().detail));
    REQUIRE(loaded);
  }
};

// This process's node, with an actor that the test speaks through.
class this_node {
 public:
  explicit this_node(const settings_of_node& with = {})
      : config_(options_of(with)), system(config_), net(actors::link_of(system)), self(system) {}
  explicit this_node(transport::fabric_options options)
      : config_(std::move(options)), system(config_), net(actors::link_of(system)), self(system) {}

  template <class Handle = worker_actor>
  std::variant<Handle, error> find(const std::string& address, const std::string& name = "worker") {
    std::variant<Handle, error> found;
    net.resolve<Handle>(self, address, name, patience)
        .receive(
            [&](const caf::strong_actor_ptr& actor) { found = caf::actor_cast<Handle>(actor); },
            [&](const caf::error& why) { found = actors::from_caf(why); });
    return found;
  }
  worker_actor worker_of(const other_node& node) {
    auto found = find(node.address);
    if (const auto* why = std::get_if<error>(&found)) FAIL(why->detail);
    return std::get<worker_actor>(found);
  }
  // The answer, or the error that came instead.
  template <class Answer, class Message>
  std::variant<Answer, caf::error> ask(const worker_actor& whom, const Message& what) {
    std::variant<Answer, caf::error> got;
    self->request(whom, caf::duration(patience), what)
        .receive([&](const Answer& answer) { got = answer; },
                 [&](const caf::error& why) { got = why; });
    return got;
  }
  // The next message of this type; none within the time.
  template <class Message>
  std::optional<Message> next(std::chrono::milliseconds within = patience) {
    std::optional<Message> got;
    self->receive([&](const Message& what) { got = what; }, caf::after(within) >> [] {});
    return got;
  }

 private:
  loaded_config config_;

 public:
  caf::actor_system system;
  actors::link& net;
  caf::scoped_actor self;
};

double milliseconds_since(clock_type::time_point began) {
  return std::chrono::duration<double, std::milli>(clock_type::now() - began).count();
}

template <class T, class U>
bool is(const std::variant<T, caf::error>& got, const U& expected) {
  return std::holds_alternative<T>(got) && std::get<T>(got) == expected;
}
template <class T>
bool is_down(const std::variant<T, caf::error>& got) {
  return std::holds_alternative<caf::error>(got) &&
         std::get<caf::error>(got) == caf::sec::request_receiver_down;
}

}  // namespace

TEST_CASE("a request to an actor of another process is answered as in one") {
  const settings_of_node with{GENERATE(from_range(both))};
  other_node there(with);
  this_node here(with);
  const auto worker = here.worker_of(there);
  for (std::uint64_t i = 0; i < 200; ++i) {
    const echo what{i, std::string(i * 100, 'x')};
    REQUIRE(is(here.ask<echo>(worker, what), what));
  }
  CHECK(worker.node() != here.system.node());
  // The same actor is the same handle.
  CHECK(here.worker_of(there) == worker);
}

TEST_CASE("an actor's refusal crosses with its code, detail and parameter") {
  other_node there;
  this_node here;
  const auto got = here.ask<echo>(here.worker_of(there), refuse{});
  REQUIRE(std::holds_alternative<caf::error>(got));
  CHECK(actors::from_caf(std::get<caf::error>(got)) ==
        error{errc::no_memory, "0 of 512 blocks free", "kv"});
}

TEST_CASE("messages of one actor to another arrive in order, whatever their sizes") {
  const settings_of_node with{GENERATE(from_range(both))};
  other_node there(with);
  this_node here(with);
  const auto worker = here.worker_of(there);
  const std::size_t sizes[] = {16, 200, 20'000, 3, 300'000, 7'000, 1 << 20, 0};
  constexpr std::uint64_t count = 4'000;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::size_t size = sizes[i % std::size(sizes)];
    here.self->send(worker, numbered{i, std::string(size, static_cast<char>('a' + i % 26))});
    // An answer now and then keeps the window open.
    if (i % 200 == 199)
      REQUIRE(std::holds_alternative<counted>(here.ask<counted>(worker, how_many{})));
  }
  const auto got = here.ask<counted>(worker, how_many{});
  REQUIRE(std::holds_alternative<counted>(got));
  CHECK(std::get<counted>(got).arrived == count);
  CHECK(std::get<counted>(got).out_of_order == 0);
}

TEST_CASE("a request passed on to a third node is answered by it, straight to who asked") {
  other_node second;
  other_node third;
  this_node here;
  const auto worker = here.worker_of(second);
  const auto last = here.worker_of(third);
  const pass_on order{caf::actor_cast<caf::actor>(last), {7, "from the third"}};
  CHECK(is(here.ask<echo>(worker, order), order.what));
  // And back to an actor of this node.
  const auto own = here.system.spawn(test::worker);
  const pass_on back{caf::actor_cast<caf::actor>(own), {8, "from here"}};
  CHECK(is(here.ask<echo>(worker, back), back.what));
  here.self->send_exit(own, caf::exit_reason::user_shutdown);
}

TEST_CASE("a promise of another process is kept later") {
  other_node there;
  this_node here;
  const auto worker = here.worker_of(there);
  std::vector<echo> answers;
  caf::scoped_actor asker(here.system);
  auto asked = asker->request(worker, caf::duration(patience), later{{1, "kept"}});
  REQUIRE(std::holds_alternative<echo>(here.ask<echo>(worker, echo{})));
  here.self->send(worker, now{});
  std::move(asked).receive([&](const echo& answer) { answers.push_back(answer); },
                           [](const caf::error&) {});
  CHECK(answers == std::vector<echo>{{1, "kept"}});
}

TEST_CASE("a monitor hears why an actor of another process ended") {
  other_node there;
  this_node here;
  const auto worker = here.worker_of(there);
  here.self->monitor(worker);
  here.self->send(worker, end{"the disk is full"});
  const auto down = here.next<caf::down_msg>();
  REQUIRE(down);
  CHECK(down->source == worker.address());
  CHECK(actors::from_caf(down->reason).detail == "the disk is full");
  CHECK(is_down(here.ask<echo>(worker, echo{})));
  CHECK(std::get<error>(here.find(there.address)).detail ==
        "\"worker\" of " + there.address + " has ended");
}

TEST_CASE("linked actors of two processes end together, in both directions") {
  other_node there;
  this_node here;
  const auto worker = here.worker_of(there);
  const auto own = here.system.spawn(test::worker);
  here.self->monitor(own);
  here.self->monitor(worker);
  caf::actor_cast<caf::abstract_actor*>(own)->add_link(
      caf::actor_cast<caf::abstract_actor*>(worker));
  const bool from_here = GENERATE(true, false);
  here.self->send(from_here ? own : worker, end{"one of two"});
  std::vector<std::string> reasons;
  for (int i = 0; i < 2; ++i) {
    const auto down = here.next<caf::down_msg>();
    REQUIRE(down);
    reasons.push_back(actors::from_caf(down->reason).detail);
  }
  CHECK(reasons == std::vector<std::string>{"one of two", "one of two"});
}

TEST_CASE("actors that were unlinked do not end together") {
  other_node there;
  this_node here;
  const auto worker = here.worker_of(there);
  const auto own = here.system.spawn(test::worker);
  auto* ours = caf::actor_cast<caf::abstract_actor*>(own);
  ours->add_link(caf::actor_cast<caf::abstract_actor*>(worker));
  ours->remove_link(caf::actor_cast<caf::abstract_actor*>(worker));
  here.self->monitor(own);
  here.self->send(own, end{"alone"});
  REQUIRE(here.next<caf::down_msg>());
  CHECK(is(here.ask<echo>(worker, echo{1, "still here"}), echo{1, "still here"}));
}

TEST_CASE("a killed node: watchers hear of it within 100 ms and open requests come back") {
  const settings_of_node with{GENERATE(from_range(both))};
  // The best of three: a host that others use may itself be late.
  double best = 1e9;
  for (int i = 0; i < 3 && best >= 100; ++i) {
    other_node there(with);
    this_node here(with);
    const auto worker = here.worker_of(there);
    here.self->monitor(worker);
    caf::scoped_actor asker(here.system);
    auto asked = asker->request(worker, caf::infinite, later{{1, "never"}});
    REQUIRE(std::holds_alternative<echo>(here.ask<echo>(worker, echo{})));
    const auto began = clock_type::now();
    there.signal(SIGKILL);
    const auto down = here.next<caf::down_msg>();
    REQUIRE(down);
    CHECK(down->reason == caf::exit_reason::remote_link_unreachable);
    std::optional<caf::error> bounced;
    std::move(asked).receive([](const echo&) {}, [&](const caf::error& why) { bounced = why; });
    best = std::min(best, milliseconds_since(began));
    REQUIRE(bounced);
    CHECK(*bounced == caf::sec::request_receiver_down);
    // From now on nobody waits for it.
    CHECK(is_down(here.ask<echo>(worker, echo{})));
  }
  std::cout << "killed over " << with.transports << ": told and given back after " << best
            << " ms\n";
  CHECK(best < 100);
}

TEST_CASE("a node that stands still is given up after the configured silence") {
  const settings_of_node with{GENERATE(from_range(both)), "127.0.0.1:0", "600"};
  other_node there(with);
  this_node here(with);
  const auto worker = here.worker_of(there);
  here.self->monitor(worker);
  REQUIRE(std::holds_alternative<echo>(here.ask<echo>(worker, echo{})));
  const auto began = clock_type::now();
  there.signal(SIGSTOP);
  REQUIRE(here.next<caf::down_msg>());
  const double took = milliseconds_since(began);
  std::cout << "stopped over " << with.transports << ": down_msg after " << took << " ms of 600\n";
  CHECK(took < 1'500);
  CHECK(is_down(here.ask<echo>(worker, echo{})));
  // It wakes, and whoever looks for its worker finds it again.
  there.signal(SIGCONT);
  const auto found = here.worker_of(there);
  CHECK(is(here.ask<echo>(found, echo{1, "back"}), echo{1, "back"}));
}

TEST_CASE("a node that comes back on its port is another one: old handles stay down") {
  settings_of_node with;
  auto first = std::make_unique<other_node>(with);
  this_node here;
  const auto old = here.worker_of(*first);
  here.self->monitor(old);
  first->kill_now();
  REQUIRE(here.next<caf::down_msg>());
  with.listen = first->address;
  other_node second(with);
  const auto found = here.worker_of(second);
  CHECK(found != old);
  CHECK(is(here.ask<echo>(found, echo{1, "new"}), echo{1, "new"}));
  CHECK(is_down(here.ask<echo>(old, echo{})));
}

TEST_CASE("whoever watches peers hears who comes and who goes, and why") {
  auto there = std::make_unique<other_node>();
  this_node here;
  here.self->send(here.net.desk(), actors::watch_peers{caf::actor_cast<caf::actor>(here.self)});
  (void)here.worker_of(*there);
  CHECK(here.next<actors::peer_joined>() == actors::peer_joined{there->address});
  there->tell("leave");
  const auto gone = here.next<actors::peer_gone>();
  REQUIRE(gone);
  CHECK(gone->address == there->address);
  CHECK_THAT(gone->reason, Catch::Contains("it left: shut down"));
  CHECK(there->wait() == 0);
}

TEST_CASE("a tensor of 64 MB crosses beside its message and comes back as it was") {
  const settings_of_node with{GENERATE(from_range(both))};
  other_node there(with);
  this_node here(with);
  const auto worker = here.worker_of(there);
  auto made = actors::make_tensor(here.net.buffers(), actors::tensor_type::f32, {4'096, 4'096});
  REQUIRE(made);
  for (std::size_t i = 0; i < made->data->size(); ++i)
    made->data->data()[i] = static_cast<std::byte>(i * 2'654'435'761U >> 13);
  const auto got = here.ask<carry>(worker, carry{"w_DF", *made});
  REQUIRE(std::holds_alternative<carry>(got));
  const auto& back = std::get<carry>(got);
  CHECK(back.name == "w_DF");
  CHECK(back.tensor.shape == made->shape);
  REQUIRE(back.tensor.data->size() == 64 << 20);
  CHECK(back.tensor.data != made->data);
  CHECK(std::ranges::equal(back.tensor.data->bytes(), made->data->bytes()));
}

TEST_CASE("a tensor whose message is too large for a header crosses all the same") {
  other_node there;
  this_node here;
  const auto worker = here.worker_of(there);
  auto made = actors::make_tensor(here.net.buffers(), actors::tensor_type::u8, {3, 1'000'003});
  REQUIRE(made);
  std::ranges::fill(made->data->bytes(), std::byte{7});
  const auto got = here.ask<carry>(worker, carry{std::string(100'000, 'n'), *made});
  REQUIRE(std::holds_alternative<carry>(got));
  CHECK(std::get<carry>(got).name.size() == 100'000);
  CHECK(std::ranges::equal(std::get<carry>(got).tensor.data->bytes(), made->data->bytes()));
}

TEST_CASE("a message that the other node does not know comes back as an error, the link stays") {
  other_node there;
  this_node here;
  const auto worker = here.worker_of(there);
  std::optional<error> refused;
  here.self->request(caf::actor_cast<caf::actor>(worker), caf::duration(patience), unknown_there{3})
      .receive([] {}, [&](const caf::error& why) { refused = actors::from_caf(why); });
  REQUIRE(refused);
  CHECK(refused->code == errc::unsupported);
  CHECK_THAT(refused->detail, Catch::Contains("this node cannot read the message") &&
                                  Catch::Contains("test::unknown_there"));
  here.self->anon_send(caf::actor_cast<caf::actor>(worker), unknown_there{4});
  CHECK(is(here.ask<echo>(worker, echo{1, "still"}), echo{1, "still"}));
}

TEST_CASE("an actor that does not answer what the handle asks is not handed out") {
  using other_actor = caf::typed_actor<caf::replies_to<int>::with<int>>;
  other_node there;
  this_node here;
  const auto found = here.find<other_actor>(there.address);
  REQUIRE(std::holds_alternative<error>(found));
  CHECK(std::get<error>(found).code == errc::conflict);
  // A part of what it answers is enough.
  using part_actor = caf::typed_actor<caf::replies_to<echo>::with<echo>>;
  CHECK(std::holds_alternative<part_actor>(here.find<part_actor>(there.address)));
}

TEST_CASE("who asks for a name or a node that is not there is told so") {
  other_node there;
  this_node here;
  CHECK(std::get<error>(here.find(there.address, "nobody")).detail ==
        there.address + " has published nothing as \"nobody\"");
  CHECK(std::get<error>(here.find("127.0.0.1")).code == errc::bad_request);
  CHECK(std::get<error>(here.find("192.0.2.1:7")).code == errc::forbidden);
  there.kill_now();
  const auto found = here.find(there.address);
  REQUIRE(std::holds_alternative<error>(found));
  CHECK_THAT(std::get<error>(found).detail, Catch::Contains(there.address));
}

TEST_CASE("a node with another secret learns why, and gets no actor") {
  settings_of_node with;
  with.secret = "the secret of a cluster";
  other_node there(with);
  with.secret = "the secret of another";
  this_node here(with);
  const auto found = here.find(there.address);
  REQUIRE(std::holds_alternative<error>(found));
  CHECK_THAT(std::get<error>(found).detail,
             Catch::Contains("differ: give both nodes the same one"));
}

TEST_CASE("a window that is full bounces requests with the numbers, and no answer is lost") {
  other_node there;
  transport::fabric_options options;
  options.transports = "posix,self";
  options.window_bytes = 2 << 20;
  this_node here(options);
  const auto worker = here.worker_of(there);
  there.signal(SIGSTOP);
  int refused = 0;
  int answered = 0;
  const auto test = caf::actor_cast<caf::actor>(here.self);
  const auto asker = here.system.spawn([&](caf::event_based_actor* self) {
    const echo big{1, std::string(100'000, 'x')};
    for (int i = 0; i < 60; ++i)
      self->request(worker, caf::infinite, big)
          .then([&](const echo&) { ++answered; },
                [&, self](const caf::error& why) {
                  if (!actors::is_refusal(why)) return;
                  const auto ours = actors::from_caf(why);
                  if (ours.code == errc::overloaded && ++refused == 1)
                    self->send(test, echo{1, ours.detail});
                });
  });
  here.self->monitor(asker);
  const auto said = here.next<echo>();
  REQUIRE(said);
  CHECK_THAT(said->text, Catch::Contains(" of 2097152 bytes for 127.0.0.1:"));
  // When it takes messages again, what was queued is answered.
  there.signal(SIGCONT);
  REQUIRE(here.next<caf::down_msg>());
  CHECK(answered > 0);
  CHECK(refused + answered == 60);
  CHECK(std::holds_alternative<echo>(here.ask<echo>(worker, echo{})));
}

TEST_CASE("actors that look for one node at the same time find the same actor, and it stays") {
  other_node there;
  this_node here;
  here.self->send(here.net.desk(), actors::watch_peers{caf::actor_cast<caf::actor>(here.self)});
  caf::scoped_actor other(here.system);
  std::vector<caf::strong_actor_ptr> found;
  const auto into = [&](const caf::strong_actor_ptr& actor) { found.push_back(actor); };
  const auto fail = [](const caf::error& why) { FAIL(actors::from_caf(why).detail); };
  auto first = here.net.resolve<worker_actor>(here.self, there.address, "worker", patience);
  auto second = here.net.resolve<worker_actor>(other, there.address, "worker", patience);
  std::move(first).receive(into, fail);
  std::move(second).receive(into, fail);
  REQUIRE(found.size() == 2);
  CHECK(found[0] == found[1]);
  const auto worker = caf::actor_cast<worker_actor>(found[0]);
  for (std::uint64_t i = 0; i < 20; ++i)
    REQUIRE(is(here.ask<echo>(worker, echo{i, ""}), echo{i, ""}));
  CHECK(here.next<actors::peer_joined>() == actors::peer_joined{there.address});
  there.kill_now();
  // One came, so one goes.
  REQUIRE(here.next<actors::peer_gone>());
  CHECK_FALSE(here.next<actors::peer_gone>(0ms));
}

TEST_CASE(
    "a message above its bound is refused at once, even to a node that is still being dialled") {
  transport::fabric_options options;
  options.message_bytes_max = 1'000;
  this_node here(options);
  // It listens and never answers.
  const auto silent = transport::listen_on(*transport::address::parse("127.0.0.1:0"));
  REQUIRE(silent);
  const auto node = actors::to_node_id({transport::bound_address(*silent), 7});
  const auto nobody = caf::actor_cast<worker_actor>(here.net.make_proxy(node, 9));
  const auto large = here.ask<echo>(nobody, echo{1, std::string(2'000, 'x')});
  REQUIRE(std::holds_alternative<caf::error>(large));
  CHECK(actors::from_caf(std::get<caf::error>(large)).code == errc::too_large);
  // What fits waits for it, and comes back when nobody answers.
  CHECK(is_down(here.ask<echo>(nobody, echo{2, "small"})));
}

TEST_CASE("a handle of more nodes than may be peers is a dead one") {
  transport::fabric_options options;
  options.peers_max = 1;
  other_node there;
  this_node here(options);
  (void)here.worker_of(there);
  const auto node = actors::to_node_id({*transport::address::parse("127.0.0.1:9"), 7});
  const auto nobody = caf::actor_cast<worker_actor>(here.net.make_proxy(node, 9));
  CHECK(is_down(here.ask<echo>(nobody, echo{1, ""})));
}

TEST_CASE(
    "of open requests those to a lost node come back in their order, and the oldest is forgotten") {
  caf::actor_system_config config;
  caf::actor_system system(config);
  caf::scoped_actor self(system);
  const auto sender = caf::actor_cast<caf::strong_actor_ptr>(self);
  const auto first = std::make_shared<actors::remote_node>(transport::node_identity{{}, 1});
  const auto second = std::make_shared<actors::remote_node>(transport::node_identity{{}, 2});
  const auto id = [](std::uint64_t n) { return caf::make_message_id(n); };
  const auto numbers = [](const auto& taken) {
    std::vector<caf::message_id> all;
    for (const auto& one : taken) all.push_back(one.id);
    return all;
  };
  actors::open_requests open(4);
  for (std::uint64_t n = 1; n <= 5; ++n) open.add(n == 3 ? second : first, sender, id(n));
  CHECK(open.count() == 4);
  open.end(sender->id(), id(4).response_id());
  open.end(sender->id(), id(1));
  CHECK(numbers(open.take(*first)) == std::vector{id(2), id(5)});
  CHECK(numbers(open.take(*first)).empty());
  CHECK(numbers(open.take(*second)) == std::vector{id(3)});
  CHECK(open.count() == 0);
}

TEST_CASE("two nodes that find each other at the same time both get through") {
  for (int round = 0; round < 5; ++round) {
    this_node a;
    this_node b;
    const auto of_a = a.system.spawn(test::worker);
    const auto of_b = b.system.spawn(test::worker);
    a.net.publish("worker", of_a);
    b.net.publish("worker", of_b);
    worker_actor seen_by_a;
    worker_actor seen_by_b;
    auto first = a.net.resolve<worker_actor>(a.self, b.net.address(), "worker", patience);
    auto second = b.net.resolve<worker_actor>(b.self, a.net.address(), "worker", patience);
    const auto into = [](worker_actor& seen) {
      return [&seen](const caf::strong_actor_ptr& p) { seen = caf::actor_cast<worker_actor>(p); };
    };
    const auto fail = [](const caf::error& why) { FAIL(actors::from_caf(why).detail); };
    std::move(first).receive(into(seen_by_a), fail);
    std::move(second).receive(into(seen_by_b), fail);
    CHECK(is(a.ask<echo>(seen_by_a, echo{1, "a"}), echo{1, "a"}));
    CHECK(is(b.ask<echo>(seen_by_b, echo{2, "b"}), echo{2, "b"}));
    a.self->send_exit(of_a, caf::exit_reason::user_shutdown);
    b.self->send_exit(of_b, caf::exit_reason::user_shutdown);
  }
}
