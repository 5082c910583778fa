#include "runtime/transport/frame.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::transport;

namespace {

frame_header header_with(std::vector<std::uint64_t> sizes) {
  frame_header h;
  h.token = 77;
  h.sequence = 3;
  h.attachment_bytes = std::move(sizes);
  return h;
}

hello greeting() {
  hello h;
  h.build = "tandem 0.1.0";
  h.cluster = "lab";
  h.node = {*address::parse("10.1.2.3:7000"), 42};
  h.fresh.fill(9);
  return h;
}

}  // namespace

TEST_CASE("an address is read and written the same way, and told from another machine's") {
  for (const std::string text : {"127.0.0.1:7000", "[::1]:1", "10.0.0.2:65535", "[fe80::1]:9"})
    CHECK(address::parse(text)->to_string() == text);
  CHECK(address::parse("127.0.0.1:1")->is_loopback());
  CHECK(address::parse("[::1]:1")->is_loopback());
  CHECK_FALSE(address::parse("10.0.0.2:1")->is_loopback());
  CHECK(address::parse("0.0.0.0:1")->is_any());
  for (const std::string text : {"", "7000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", ":1",
                                 "127.0.0.1:-1", "::1:7", "127.0.0.1:7x"})
    CHECK_FALSE(address::parse(text));
}

TEST_CASE("a frame's header comes back as it was, with its body beside it or within") {
  for (const std::size_t attachments : {0, 1, 16}) {
    auto h = header_with(std::vector<std::uint64_t>(attachments, 1000));
    h.body_bytes = 5;
    for (const bool within : {false, true}) {
      h.body_in_header = within;
      bytes wire;
      encode_frame_header(h, wire);
      if (within) wire.insert(wire.end(), {'h', 'e', 'l', 'l', 'o'});
      const std::uint64_t data = attachments * 1000 + (within ? 0 : 5);
      const auto back = decode_frame_header(wire, data, {1 << 20, 1 << 20});
      REQUIRE(back);
      CHECK(back->header == h);
      CHECK(back->body.size() == (within ? 5 : 0));
      CHECK_FALSE(decode_frame_header(wire, data + 1, {1 << 20, 1 << 20}));
      wire.pop_back();
      CHECK_FALSE(decode_frame_header(wire, data, {1 << 20, 1 << 20}));
    }
  }
}

TEST_CASE("a frame that claims more than is allowed is refused before anything is taken for it") {
  const auto refused = [](const frame_header& h, std::uint64_t data) {
    bytes wire;
    encode_frame_header(h, wire);
    const auto back = decode_frame_header(wire, data, {100, 1000});
    return back ? std::string("taken") : back.error().detail;
  };
  auto big_body = header_with({});
  big_body.body_bytes = 101;
  CHECK(refused(big_body, 101) == "a message of 101 bytes, 100 are allowed");
  CHECK(refused(header_with({1001}), 1001) ==
        "attachments of more than the 1000 bytes that are allowed");
  // Sizes whose sum wraps around.
  const std::uint64_t half = 1ULL << 63;
  CHECK(refused(header_with({half, half}), 0) ==
        "attachments of more than the 1000 bytes that are allowed");
  CHECK(refused(header_with({10}), 11) == "a frame of 11 bytes where its header says 10");
}

TEST_CASE("records come back one by one, however they are cut") {
  bytes wire;
  for (const auto& one : {encode_record(record_kind::hello, encode_body(greeting())),
                          encode_record(record_kind::ping, {}),
                          encode_record(record_kind::bye, encode_body(bye{12, "restart"}))})
    wire.insert(wire.end(), one.begin(), one.end());
  std::vector<record_kind> kinds;
  std::size_t at = 0;
  for (std::size_t have = 0; have <= wire.size(); ++have) {
    const auto next = decode_record(std::span<const char>(wire).subspan(at, have - at));
    REQUIRE(next);
    if (next->taken == 0) continue;
    kinds.push_back(next->what.kind);
    if (next->what.kind == record_kind::hello) CHECK(*decode_hello(next->what.body) == greeting());
    if (next->what.kind == record_kind::bye)
      CHECK(*decode_bye(next->what.body) == bye{12, "restart"});
    at += next->taken;
  }
  CHECK(kinds == std::vector{record_kind::hello, record_kind::ping, record_kind::bye});
}

TEST_CASE("what no node says is refused with the numbers") {
  const std::string http = "GET / HTTP/1.1\r\n\r\n";
  const auto next = decode_record(http);
  REQUIRE_FALSE(next);
  CHECK(next.error().detail ==
        "a record of 542393671 bytes, where 1 to 12288 are allowed: no tandem node speaks");
  CHECK_FALSE(decode_record(std::string("\1\0\0\0\x63", 5)));
  auto cut = encode_body(greeting());
  cut.pop_back();
  CHECK_FALSE(decode_hello(cut));
  CHECK_FALSE(decode_proof(bytes(32)));
}

TEST_CASE("a ping says how many frames were taken, and nothing else") {
  CHECK(*decode_ping(encode_body(ping{77})) == ping{77});
  CHECK_FALSE(decode_ping({}));
  CHECK_FALSE(decode_ping(bytes(9)));
}

TEST_CASE("a greeting whose names would not print is refused") {
  auto h = greeting();
  h.cluster = "lab\n";
  CHECK_FALSE(decode_hello(encode_body(h)));
  h = greeting();
  h.build = "\x1b[31m";
  CHECK_FALSE(decode_hello(encode_body(h)));
  CHECK(is_name("Grüße"));
  CHECK_FALSE(is_name(std::string(max_name_bytes + 1, 'x')));
}

TEST_CASE("a refusal is one line whatever the peer wrote into it") {
  const auto back = decode_refusal(encode_refusal("first\nsecond\x1b[31m"));
  REQUIRE(back);
  CHECK(*back == "first second [31m");
  CHECK(decode_refusal(encode_refusal(std::string(5000, 'x')))->size() == max_reason_bytes);
  CHECK(decode_bye(encode_body(bye{1, "so\r\nlong"}))->reason == "so  long");
}
