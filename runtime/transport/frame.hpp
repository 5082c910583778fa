// What travels between two nodes, byte by byte: records on the control lane (a TCP connection of
// its own: handshake, pings, farewell) and the header in front of every frame on the data lane
// (UCX). Pure encoding; every size and count is checked here, before anybody uses it.
#pragma once

#include "runtime/transport/address.hpp"
#include "runtime/transport/wire_bytes.hpp"

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tandem::transport {

// A node is an address and a life: a process that comes back on its address is another node.
struct node_identity {
  address listen;
  std::uint32_t incarnation = 0;
  auto operator<=>(const node_identity&) const = default;
  std::string to_string() const;
};

void write_identity(wire_writer& out, const node_identity& who);
node_identity read_identity(wire_reader& in);  // the reader says whether it was whole

// Short enough, and nothing in it that a log or a terminal would take for its own.
bool is_name(std::string_view text);

// --- the control lane ---------------------------------------------------------------------------

inline constexpr std::uint16_t protocol_version = 1;
inline constexpr std::size_t max_record_bytes = 12 << 10;
inline constexpr std::size_t max_name_bytes = 128;    // build and cluster, printable
inline constexpr std::size_t max_reason_bytes = 400;  // one line for a person
inline constexpr std::size_t max_worker_address_bytes = 8 << 10;
using nonce = std::array<std::uint8_t, 32>;
using mac = std::array<std::uint8_t, 32>;

enum class record_kind : std::uint8_t {
  hello = 1,
  challenge,
  proof,
  accept,
  ready,
  refusal,
  ping,
  bye
};

struct record {
  record_kind kind = record_kind::ping;
  std::span<const char> body;
};

// hello (who dials) and challenge (who listens) have one body.
struct hello {
  std::uint16_t protocol = protocol_version;
  std::string build;
  std::string cluster;
  node_identity node;
  nonce fresh{};
  bool operator==(const hello&) const = default;
};
// proof (who dials) and accept (who listens): that it knows the secret, and where its UCX worker
// is.
struct proof {
  mac proves{};
  bytes worker_address;
  bool operator==(const proof&) const = default;
};
struct ping {
  std::uint64_t frames_taken = 0;  // of those that its receiver has sent
  bool operator==(const ping&) const = default;
};
struct bye {
  std::uint64_t frames_sent = 0;  // it had sent so many frames: those may still be on their way
  std::string reason;
  bool operator==(const bye&) const = default;
};

bytes encode_record(record_kind kind, std::span<const char> body);
bytes encode_body(const hello& h);
bytes encode_body(const proof& p);
bytes encode_body(const ping& p);
bytes encode_body(const bye& b);
bytes encode_refusal(std::string_view reason);  // the body; cut to what fits

// The first whole record of `from` and how many bytes it takes; 0 bytes when more have to come.
struct next_record {
  std::size_t taken = 0;
  record what;
};
result<next_record> decode_record(std::span<const char> from);
// Of another protocol version only `protocol` is read.
result<hello> decode_hello(std::span<const char> body);
result<proof> decode_proof(std::span<const char> body);
result<ping> decode_ping(std::span<const char> body);
result<bye> decode_bye(std::span<const char> body);
result<std::string> decode_refusal(std::span<const char> body);

// --- the data lane ------------------------------------------------------------------------------

inline constexpr std::size_t max_attachments = 16;
inline constexpr std::size_t frame_header_bytes = 24;  // and 8 for each attachment

struct frame_header {
  std::uint64_t token = 0;  // which peer sends: known to it and us only
  std::uint64_t sequence = 0;
  std::uint32_t body_bytes = 0;
  bool body_in_header =
      false;  // the body follows at once; otherwise it stands before the attachments
  std::vector<std::uint64_t> attachment_bytes;
  bool operator==(const frame_header&) const = default;
};
struct frame_bounds {
  std::uint64_t body_bytes = 0;
  std::uint64_t attachment_bytes = 0;  // all of them together
};

void encode_frame_header(const frame_header& h, bytes& into);
struct decoded_frame {
  frame_header header;
  std::span<const char> body;  // when it is in the header
};
result<decoded_frame> decode_frame_header(std::span<const char> from, std::uint64_t data_bytes,
                                          const frame_bounds& bounds);

}  // namespace tandem::transport
