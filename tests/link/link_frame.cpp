#include "actors/link_frame.hpp"
#include "actors/remote_node.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::actors;

TEST_CASE("the header of a message between nodes comes back as it was") {
  link_header h{.op = link_op::message, .source = 7, .target = 9, .number = 1ULL << 63};
  for (const bool routed : {false, true}) {
    if (routed) h.source_node = {*transport::address::parse("[::1]:7000"), 42};
    transport::bytes wire;
    encode_link_header(h, wire);
    const std::size_t size = wire.size();
    wire.insert(wire.end(), {'x', 'y'});
    const auto back = decode_link_frame(wire);
    REQUIRE(back);
    CHECK(back->header == h);
    CHECK(back->payload.size() == 2);
    CHECK_FALSE(decode_link_frame(std::span<const char>(wire).first(size - 1)));
    wire[0] = 99;
    CHECK_FALSE(decode_link_frame(wire));
  }
}

TEST_CASE("the answer to a name comes back as it was, and a cut one is refused") {
  const resolved_name what{"", {"caf::replies_to<int>::with<int>", "second"}};
  auto wire = encode_resolved(what);
  CHECK(*decode_resolved(wire) == what);
  wire.pop_back();
  CHECK_FALSE(decode_resolved(wire));
  CHECK(decode_resolved(encode_resolved({"no such name", {}}))->failure == "no such name");
}

TEST_CASE("a node's id in CAF says where to dial it, and a process that comes back has another") {
  for (const std::string text : {"10.1.2.3:7000", "[fe80::1]:65535"}) {
    const transport::node_identity who{*transport::address::parse(text), 77};
    CHECK(to_identity(to_node_id(who)) == who);
    CHECK(to_node_id(who) != to_node_id({who.listen, 78}));
  }
  CHECK_FALSE(to_identity(caf::node_id()));
  CHECK_FALSE(to_identity(caf::make_node_id(1, caf::node_id::default_data::host_id_type{})));
}
