// Any bytes as what a peer sends: on the control lane, cut into records and played into both sides
// of a handshake, and as the header of a frame. Nobody is trusted who does not know the secret, and
// what is accepted comes back as it was when it is written again.
#include "runtime/transport/handshake.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

using namespace tandem;
using namespace tandem::transport;

namespace {

credentials own() {
  credentials c;
  c.self.listen.host = {127, 0, 0, 1};
  c.self.listen.port = 7000;
  c.self.incarnation = 1;
  c.build = "tandem";
  c.cluster = "lab";
  c.secret = "a secret that no input knows";
  return c;
}

void play(handshake::role side, std::span<const char> wire) {
  const credentials mine = own();
  handshake shake(side, mine, nonce{1, 2, 3}, [] { return result<bytes>({'w'}); });
  bytes out;
  while (shake.now() != handshake::state::refused) {
    const auto next = decode_record(wire);
    if (!next || next->taken == 0) return;
    ensure(next->taken <= wire.size(), "a record lies within what came");
    (void)shake.take(next->what, out);
    ensure(!(shake.now() == handshake::state::proven || shake.now() == handshake::state::done),
           "trust without the secret");
    wire = wire.subspan(next->taken);
  }
  ensure(out.size() < 8 * max_record_bytes, "answers are bounded");
}

template <class Decoded>
void check_again(const Decoded& first, result<Decoded> (*decode)(std::span<const char>)) {
  const auto second = decode(encode_body(first));
  ensure(second.has_value() && *second == first, "what is read can be written");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  bytes input(data, data + size);
  const std::span<const char> wire(input);
  play(handshake::role::listener, wire);
  play(handshake::role::dialler, wire);
  if (const auto h = decode_hello(wire); h && h->protocol == protocol_version)
    check_again(*h, decode_hello);
  if (const auto p = decode_proof(wire)) check_again(*p, decode_proof);
  if (const auto p = decode_ping(wire)) check_again(*p, decode_ping);
  if (const auto b = decode_bye(wire)) check_again(*b, decode_bye);
  if (const auto reason = decode_refusal(wire))
    ensure(std::ranges::none_of(*reason, [](char c) { return c == '\n'; }), "one line");
  const frame_bounds bounds{1 << 16, 1 << 20};
  for (const std::uint64_t beside : {0, 1, 100}) {
    const auto frame = decode_frame_header(wire, beside, bounds);
    if (!frame) continue;
    ensure(frame->header.attachment_bytes.size() <= max_attachments, "bounded attachments");
    bytes again;
    encode_frame_header(frame->header, again);
    again.insert(again.end(), frame->body.begin(), frame->body.end());
    ensure(again == input, "a header is written as it was read");
  }
  return 0;
}
