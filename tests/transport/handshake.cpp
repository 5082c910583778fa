#include "runtime/transport/handshake.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <string>

using namespace tandem;
using namespace tandem::transport;

namespace {

constexpr auto secret = "correct horse battery";

credentials node(std::string_view address_text, std::uint32_t life) {
  credentials c;
  c.self = {*address::parse(address_text), life};
  c.build = "tandem 0.1.0 abc";
  c.cluster = "lab";
  c.secret = secret;
  return c;
}

auto worker_of(char life) {
  return [life] { return result<bytes>({'w', life}); };
}

nonce number(std::uint8_t n) {
  nonce made{};
  made.fill(n);
  return made;
}

// Both sides of one connection; a test may change what is on the wire.
struct conversation {
  credentials a = node("127.0.0.1:1", 1);
  credentials b = node("127.0.0.1:2", 2);
  const bytes a_worker = {'w', 'a'};
  const bytes b_worker = {'w', 'b'};
  int a_lanes = 0;  // opened
  int b_lanes = 0;
  std::string a_failed;
  std::string b_failed;
  std::unique_ptr<handshake> dialler;
  std::unique_ptr<handshake> listener;
  bytes everything;  // that was said

  template <class Change>
  void run(Change change) {
    const auto opener = [](int& opened, bytes where) {
      return [&opened, where] {
        ++opened;
        return result<bytes>(where);
      };
    };
    dialler = std::make_unique<handshake>(handshake::role::dialler, a, number(1),
                                          opener(a_lanes, a_worker));
    listener = std::make_unique<handshake>(handshake::role::listener, b, number(2),
                                           opener(b_lanes, b_worker));
    bytes to_b = dialler->greeting();
    for (int turn = 0; turn < 10 && !to_b.empty(); ++turn) {
      change(to_b);
      bytes to_a = feed(*listener, to_b, b_failed);
      change(to_a);
      to_b = feed(*dialler, to_a, a_failed);
    }
  }
  void run() {
    run([](bytes&) {});
  }

 private:
  bytes feed(handshake& side, const bytes& wire, std::string& failed) {
    everything.insert(everything.end(), wire.begin(), wire.end());
    bytes out;
    std::span<const char> left(wire);
    while (!left.empty() && side.now() != handshake::state::refused) {
      const auto next = decode_record(left);
      REQUIRE(next);
      REQUIRE(next->taken > 0);
      if (const auto taken = side.take(next->what, out); !taken) failed = taken.error().detail;
      left = left.subspan(next->taken);
    }
    return out;
  }
};

}  // namespace

TEST_CASE("two nodes with one secret trust each other and know who is there") {
  conversation c;
  c.run();
  REQUIRE(c.dialler->now() == handshake::state::done);
  REQUIRE(c.listener->now() == handshake::state::done);
  CHECK(c.dialler->peer() == c.b.self);
  CHECK(c.listener->peer() == c.a.self);
  CHECK(c.dialler->peer_worker_address() == c.b_worker);
  CHECK(c.a_lanes == 1);
  CHECK(c.b_lanes == 1);
  CHECK(c.listener->peer_worker_address() == c.a_worker);
  CHECK(c.dialler->token_out() == c.listener->token_in());
  CHECK(c.dialler->token_in() == c.listener->token_out());
  CHECK(c.dialler->token_in() != c.dialler->token_out());
}

TEST_CASE("neither the secret nor a frame's token is ever on the wire") {
  conversation c;
  c.run();
  const std::string said(c.everything.begin(), c.everything.end());
  CHECK(said.find(secret) == std::string::npos);
  for (const auto token : {c.dialler->token_in(), c.dialler->token_out()}) {
    bytes text;
    wire_writer(text).number(token);
    CHECK(said.find(std::string(text.begin(), text.end())) == std::string::npos);
  }
}

TEST_CASE("who refuses says why in a line that both sides get to see") {
  conversation c;
  std::string why;
  SECTION("another secret") {
    c.a.secret = "some other secret of 16";
    why = "the secrets of 127.0.0.1:2 and 127.0.0.1:1 differ: give both nodes the same one";
  }
  SECTION("another cluster") {
    c.a.cluster = "production";
    why = "127.0.0.1:2 belongs to cluster \"lab\", its peer to \"production\"";
  }
  SECTION("another build") {
    c.a.build = "tandem 0.2.0 def";
    why =
        "127.0.0.1:2 runs build tandem 0.1.0 abc, its peer tandem 0.2.0 def: run the same build "
        "on both";
  }
  SECTION("the node itself") {
    c.a = c.b;
    why = "127.0.0.1:2 is this node itself";
  }
  c.run();
  CHECK(c.b_failed == why);
  CHECK(c.a_failed == "it refused: " + why);
  CHECK(c.b_lanes == 0);  // who has not proven itself costs no data lane
}

TEST_CASE("a node of another protocol version is refused by name of the versions") {
  conversation c;
  c.run([](bytes& wire) {
    const auto next = decode_record(wire);
    if (!next || next->taken == 0 || next->what.kind != record_kind::hello) return;
    wire[5 + 4] = 7;  // behind size, kind and magic
  });
  CHECK(c.b_failed == "127.0.0.1:2 speaks protocol 1, its peer 7: run the same build on both");
  CHECK(c.a_failed == "it refused: " + c.b_failed);
}

TEST_CASE("whatever byte is changed on the way, no trust comes of it") {
  conversation whole;
  whole.run();
  std::size_t changed = 0;
  for (std::size_t at = 0; at < whole.everything.size(); ++at) {
    conversation c;
    std::size_t position = 0;
    bool framing = false;
    c.run([&](bytes& wire) {
      if (framing) wire.clear();
      if (at >= position && at < position + wire.size()) {
        wire[at - position] = static_cast<char>(wire[at - position] ^ 1);
        const auto next = decode_record(wire);
        // A broken frame of a record ends the connection before the handshake sees it.
        if (!next || next->taken != wire.size()) {
          framing = true;
          wire.clear();
        }
      }
      position += wire.size();
    });
    if (framing) continue;
    ++changed;
    const bool both =
        c.dialler->now() == handshake::state::done && c.listener->now() == handshake::state::done;
    CHECK_FALSE(both);
  }
  CHECK(changed > 200);
}

TEST_CASE("a proof of an earlier conversation, or of the other side, proves nothing") {
  const credentials a = node("127.0.0.1:1", 1);
  const credentials b = node("127.0.0.1:2", 2);
  const auto proof_said_to = [&](const nonce& listeners) {
    handshake dialler(handshake::role::dialler, a, number(1), worker_of(1));
    handshake listener(handshake::role::listener, b, listeners, worker_of(2));
    bytes challenge;
    REQUIRE(listener.take(decode_record(dialler.greeting())->what, challenge));
    bytes proof;
    REQUIRE(dialler.take(decode_record(challenge)->what, proof));
    return proof;
  };
  const bytes old = proof_said_to(number(2));
  handshake dialler(handshake::role::dialler, a, number(1), worker_of(1));
  handshake listener(handshake::role::listener, b, number(3), worker_of(2));
  bytes out;
  REQUIRE(listener.take(decode_record(dialler.greeting())->what, out));
  out.clear();
  CHECK_FALSE(listener.take(decode_record(old)->what, out));
  // A listener without the secret sends the dialler's own proof back.
  handshake second(handshake::role::dialler, a, number(1), worker_of(1));
  handshake other(handshake::role::listener, b, number(2), worker_of(2));
  bytes challenge;
  REQUIRE(other.take(decode_record(second.greeting())->what, challenge));
  bytes proof;
  REQUIRE(second.take(decode_record(challenge)->what, proof));
  bytes reflected = proof;
  reflected[4] = static_cast<char>(record_kind::accept);
  CHECK_FALSE(second.take(decode_record(reflected)->what, out));
}

TEST_CASE("without a secret only this machine is spoken to, and a short one is refused") {
  const auto refused = [](std::string_view where, std::string_view with) {
    const auto trusted = check_trust(*address::parse(where), with);
    return trusted ? std::string() : trusted.error().detail;
  };
  CHECK(refused("127.0.0.1:7", "").empty());
  CHECK(refused("10.0.0.2:7", secret).empty());
  CHECK(refused("10.0.0.2:7", "") ==
        "10.0.0.2:7 can be reached from other machines and this cluster has no secret: give every "
        "node the same secret, or use 127.0.0.1");
  CHECK(refused("127.0.0.1:7", "short") ==
        "a secret of 5 characters can be guessed: give 16 or more");
}
