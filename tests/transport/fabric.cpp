#include "tests/support/fabric_world.hpp"

#include <algorithm>
#include <thread>

using namespace tandem;
using namespace tandem::transport;
using test::body_of;
using test::fabric_node;

namespace {

fabric_options over(std::string transports) {
  fabric_options options;
  options.transports = std::move(transports);
  return options;
}

buffer_ptr tensor_of(fabric_node& node, std::size_t size, std::uint64_t seed) {
  auto taken = node.fabric->buffers()->take(size);
  REQUIRE(taken);
  test::fill((*taken)->bytes(), seed);
  return *taken;
}

}  // namespace

TEST_CASE("frames of every size arrive whole and in the order of sending") {
  const auto transports = GENERATE(as<std::string>{}, "posix,self", "tcp,self");
  CAPTURE(transports);
  fabric_node a(over(transports));
  fabric_node b(over(transports));
  const auto to_b = a.connect(b);
  const std::vector<std::size_t> sizes = {16, 300, 20'000, 300'000, 1 << 20, 0, 9'000};
  constexpr std::size_t count = 3'000;
  std::size_t sent = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::string body(sizes[i % sizes.size()] + 8, static_cast<char>('a' + i % 26));
    body.replace(0, 8, std::to_string(10'000'000 + i));
    std::vector<buffer_ptr> tensors;
    if (i % 5 == 0) tensors.push_back(tensor_of(a, 1 + i * 7, i));
    // A full window is a reason to wait for what was sent.
    for (;;) {
      const auto queued = a.fabric->send(to_b, body_of(body), tensors);
      if (queued) break;
      REQUIRE(queued.error().code == errc::overloaded);
      REQUIRE(b.wait([&] { return !b.frames.empty(); }));
    }
    ++sent;
    if (i % 100 == 99) {
      REQUIRE(b.wait_for_frames(100));
      const std::lock_guard lock(b.mutex);
      for (std::size_t k = 0; k < 100; ++k) {
        const std::size_t n = i - 99 + k;
        const auto& frame = b.frames[k];
        REQUIRE(frame.body.substr(0, 8) == std::to_string(10'000'000 + n));
        REQUIRE(frame.body.size() == sizes[n % sizes.size()] + 8);
        REQUIRE(std::all_of(frame.body.begin() + 8, frame.body.end(),
                            [&](char c) { return c == static_cast<char>('a' + n % 26); }));
        REQUIRE(frame.attachments.size() == (n % 5 == 0 ? 1 : 0));
        if (n % 5 == 0) REQUIRE(test::is_filled(frame.attachments[0]->bytes(), n));
      }
      b.frames.clear();
    }
  }
  CHECK(sent == count);
}

TEST_CASE("several tensors and a body too large for a header travel as one frame") {
  const auto transports = GENERATE(as<std::string>{}, "posix,self", "tcp,self");
  fabric_node a(over(transports));
  fabric_node b(over(transports));
  const auto to_b = a.connect(b);
  for (const std::size_t body : {0, 100, 8'000, 50'000})
    for (const std::size_t size : {0, 1, 5'000, 3'000'000}) {
      CAPTURE(transports, body, size);
      REQUIRE(a.fabric->send(to_b, bytes(body, 'x'),
                             {tensor_of(a, size, 1), tensor_of(a, 10, 2), tensor_of(a, size, 3)}));
      REQUIRE(b.wait_for_frames(1));
      const std::lock_guard lock(b.mutex);
      const auto& frame = b.frames[0];
      CHECK(frame.body == std::string(body, 'x'));
      REQUIRE(frame.attachments.size() == 3);
      CHECK(frame.attachments[0]->size() == size);
      CHECK(test::is_filled(frame.attachments[0]->bytes(), 1));
      CHECK(test::is_filled(frame.attachments[1]->bytes(), 2));
      CHECK(test::is_filled(frame.attachments[2]->bytes(), 3));
      b.frames.clear();
    }
}

TEST_CASE("both sides may send at once as soon as one has dialled") {
  fabric_node a;
  fabric_node b;
  const auto to_b = a.connect(b);
  REQUIRE(b.wait([&] { return !b.up.empty(); }));
  CHECK(b.up[0]->node() == a.fabric->self());
  REQUIRE(a.fabric->send(to_b, body_of("to b")));
  REQUIRE(b.fabric->send(b.up[0], body_of("to a")));
  REQUIRE(b.wait_for_frames(1));
  REQUIRE(a.wait_for_frames(1));
  CHECK(b.frames[0].body == "to b");
  CHECK(a.frames[0].body == "to a");
}

TEST_CASE("a node that leaves is seen to leave, after its last frames") {
  auto a = std::make_unique<fabric_node>();
  fabric_node b;
  const auto to_b = a->connect(b);
  for (int i = 0; i < 500; ++i) REQUIRE(a->fabric->send(to_b, bytes(5'000, 'x')));
  a->fabric->close("moves elsewhere");
  REQUIRE(b.wait([&] { return !b.gone.empty(); }));
  CHECK(b.frames.size() == 500);
  CHECK_THAT(b.gone[0].second.detail, Catch::Contains("it left: moves elsewhere"));
  CHECK(to_b->gone());
  CHECK(a->fabric->send(to_b, body_of("late")).error().code == errc::unavailable);
}

TEST_CASE("a node with another secret, cluster or build learns why it may not join") {
  fabric_options options;
  options.secret = "one secret of a cluster";
  fabric_node a(options);
  std::string why;
  SECTION("secret") {
    options.secret = "another secret of none";
    why = "differ: give both nodes the same one";
  }
  SECTION("no secret") {
    options.secret = "";
    why = "differ: give both nodes the same one";
  }
  SECTION("cluster") {
    options.cluster = "other";
    why = "belongs to cluster \"tandem\", its peer to \"other\"";
  }
  SECTION("build") {
    options.build = "new";
    why = "run the same build on both";
  }
  fabric_node b(options);
  const auto found = b.dial(a.address());
  REQUIRE_FALSE(found);
  CHECK_THAT(found.error().detail, Catch::Contains(why));
  CHECK(a.up.empty());
  CHECK(a.fabric->counts().peers == 0);
}

TEST_CASE("a node does not dial itself, nor where nobody listens") {
  fabric_node a;
  CHECK_THAT(a.dial(a.address()).error().detail, Catch::Contains("is this node itself"));
  address nowhere;
  {
    fabric_node b;
    nowhere = b.address();
  }
  const auto found = a.dial(nowhere);
  REQUIRE_FALSE(found);
  CHECK_THAT(found.error().detail, Catch::Contains(nowhere.to_string()));
}

TEST_CASE("without a secret a fabric neither listens to nor dials other machines") {
  struct nobody : fabric_events {
    void peer_up(const peer_ptr&) override {}
    void frame_arrived(const peer_ptr&, std::span<const char>, std::vector<buffer_ptr>) override {}
    void peer_gone(const peer_ptr&, const error&) override {}
  } events;
  fabric_options options;
  options.listen = "0.0.0.0:0";
  CHECK(fabric::open(options, events).error().code == errc::forbidden);
  options.secret = "one secret of a cluster";
  CHECK_THAT(fabric::open(options, events).error().detail, Catch::Contains("advertise"));
  fabric_node a;
  CHECK(a.dial(*address::parse("192.0.2.1:9")).error().code == errc::forbidden);
}

TEST_CASE("a message or tensor above its bound is refused with the numbers and the peer stays") {
  fabric_options options;
  options.message_bytes_max = 1'000;
  options.tensor_bytes_max = 5'000;
  fabric_node a(options);
  fabric_node b(options);
  const auto to_b = a.connect(b);
  CHECK(a.fabric->send(to_b, bytes(1'001)).error().code == errc::too_large);
  CHECK(a.fabric->send(to_b, {}, {tensor_of(a, 5'001, 1)}).error().code == errc::too_large);
  REQUIRE(a.fabric->send(to_b, bytes(1'000), {tensor_of(a, 5'000, 1)}));
  REQUIRE(b.wait_for_frames(1));
}

TEST_CASE("a receiver without room for a tensor makes it wait, and later frames behind it") {
  fabric_options small;
  small.pool_bytes = 4 << 20;
  fabric_node a;
  fabric_node b(small);
  const auto to_b = a.connect(b);
  for (std::uint64_t i = 0; i < 12; ++i) {
    REQUIRE(a.fabric->send(to_b, body_of(std::to_string(i)), {tensor_of(a, 1 << 20, i)}));
  }
  REQUIRE(a.fabric->send(to_b, body_of("last")));
  for (std::uint64_t i = 0; i < 12; ++i) {
    REQUIRE(b.wait_for_frames(1));
    const std::lock_guard lock(b.mutex);
    CHECK(b.frames[0].body == std::to_string(i));
    CHECK(test::is_filled(b.frames[0].attachments[0]->bytes(), i));
    CHECK(std::ranges::count_if(b.frames,
                                [](const auto& one) { return !one.attachments.empty(); }) <= 4);
    CHECK(b.fabric->buffers()->bytes_held() <= small.pool_bytes);
    b.frames.erase(b.frames.begin());
  }
  REQUIRE(b.wait_for_frames(1));
  CHECK(b.frames[0].body == "last");
}

TEST_CASE("a frame of several tensors waits for room for all of them and holds none meanwhile") {
  fabric_options small;
  small.pool_bytes = 4 << 20;
  fabric_node a;
  fabric_node b(small);
  const auto to_b = a.connect(b);
  auto held = tensor_of(b, 2 << 20, 1);
  REQUIRE(a.fabric->send(to_b, body_of("before")));
  REQUIRE(a.fabric->send(to_b, {}, {tensor_of(a, 1 << 20, 2), tensor_of(a, 2 << 20, 3)}));
  REQUIRE(b.wait_for_frames(1));
  CHECK(b.fabric->buffers()->bytes_in_use() == 2 << 20);
  held.reset();
  REQUIRE(b.wait_for_frames(2));
  CHECK(test::is_filled(b.frames[1].attachments[0]->bytes(), 2));
  CHECK(test::is_filled(b.frames[1].attachments[1]->bytes(), 3));
}

TEST_CASE("a tensor for which there can never be room ends the connection and says so") {
  fabric_options small;
  small.pool_bytes = 3 << 20;
  fabric_node a;
  fabric_node b(small);
  const auto to_b = a.connect(b);
  REQUIRE(a.fabric->send(to_b, {}, {tensor_of(a, 1 << 20, 1), tensor_of(a, (1 << 20) + 1, 2)}));
  REQUIRE(a.fabric->send(to_b, {}, {tensor_of(a, 2 << 20, 1), tensor_of(a, (1 << 20) + 1, 2)}));
  REQUIRE(b.wait([&] { return !b.gone.empty(); }));
  CHECK(b.frames.size() == 1);
  CHECK_THAT(b.gone[0].second.detail, Catch::Contains("buffers of 3145729 bytes") &&
                                          Catch::Contains("the pool has 3145728"));
}

TEST_CASE("a peer that answers pings but takes no frame is given up after the configured time") {
  fabric_options options;
  options.stalled_after = std::chrono::milliseconds(300);
  options.silent_after = std::chrono::milliseconds(600);
  fabric_node a(options);
  options.pool_bytes = 2 << 20;
  fabric_node b(options);
  const auto to_b = a.connect(b);
  const auto held = tensor_of(b, 2 << 20, 1);
  REQUIRE(a.fabric->send(to_b, body_of("taken")));
  REQUIRE(a.fabric->send(to_b, {}, {tensor_of(a, 1 << 20, 1)}));
  REQUIRE(a.wait([&] { return !a.gone.empty(); }));
  CHECK_THAT(a.gone[0].second.detail,
             Catch::Contains("it answers, but has taken 1 of 2 frames for 0."));
}

TEST_CASE("what waits behind a tensor without room is bounded") {
  fabric_options options;
  options.message_bytes_max = 100'000;
  options.tensor_bytes_max = 1 << 20;
  fabric_node a(options);
  options.window_bytes = 1 << 20;
  options.pool_bytes = 1 << 20;
  fabric_node b(options);
  const auto to_b = a.connect(b);
  const auto held = tensor_of(b, 1 << 20, 1);
  REQUIRE(a.fabric->send(to_b, {}, {tensor_of(a, 1 << 20, 2)}));
  // Small ones leave the sender's window as soon as they are on their way.
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!to_b->gone() && std::chrono::steady_clock::now() < until)
    (void)a.fabric->send(to_b, bytes(1'000));
  REQUIRE(b.wait([&] { return !b.gone.empty(); }));
  CHECK_THAT(b.gone[0].second.detail, Catch::Contains("wait behind a tensor that finds no room"));
  REQUIRE(a.wait([&] { return !a.gone.empty(); }));
}

TEST_CASE("an address that is dialled twice, at once or later, is one peer") {
  fabric_node a;
  fabric_node b;
  std::vector<peer_ptr> found;
  const auto dial = [&] {
    a.fabric->dial(b.address(), [&](const result<peer_ptr>& got) {
      const std::lock_guard lock(a.mutex);
      found.push_back(got ? *got : nullptr);
      a.changed.notify_all();
    });
  };
  dial();
  dial();
  REQUIRE(a.wait([&] { return found.size() == 2; }));
  dial();
  REQUIRE(a.wait([&] { return found.size() == 3; }));
  REQUIRE(found[0] != nullptr);
  CHECK(found[1] == found[0]);
  CHECK(found[2] == found[0]);
  CHECK(a.fabric->counts().peers == 1);
  CHECK_FALSE(found[0]->gone());
}

TEST_CASE("a fabric that is closed refuses what comes, and says so") {
  fabric_node a;
  fabric_node b;
  const auto to_b = a.connect(b);
  a.fabric->close();
  CHECK(a.fabric->send(to_b, body_of("late")).error().code == errc::unavailable);
  CHECK(to_b->bytes_in_flight() == 0);
  CHECK(a.dial(b.address()).error().code == errc::unavailable);
}

TEST_CASE("buffers may come back while their fabric closes") {
  for (int round = 0; round < 20; ++round) {
    auto node = std::make_unique<fabric_node>();
    std::vector<buffer_ptr> held;
    for (int i = 0; i < 50; ++i) held.push_back(*node->fabric->buffers()->take(1'000));
    std::thread other([held = std::move(held)]() mutable {
      while (!held.empty()) held.pop_back();
    });
    node.reset();
    other.join();
  }
}

TEST_CASE("buffers are used again, stay within their bound, and outlive their fabric") {
  auto node = std::make_unique<fabric_node>();
  auto pool = node->fabric->buffers();
  auto first = *pool->take(100'000);
  const auto* at = first->data();
  first.reset();
  auto second = *pool->take(70'000);
  CHECK(second->data() == at);
  CHECK(second->size() == 70'000);
  CHECK(pool->bytes_in_use() == 128 << 10);
  CHECK(pool->take(4ULL << 30).error().code == errc::too_large);
  node.reset();
  pool.reset();
  test::fill(second->bytes(), 1);
  CHECK(test::is_filled(second->bytes(), 1));
}
