// What stands in front of a message between nodes: what is to be done, for whom, and from whom.
// Pure encoding, no CAF.
#pragma once

#include "runtime/transport/frame.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tandem::actors {

enum class link_op : std::uint8_t {
  message = 1,  // source to target: the payload
  monitor,      // tell me when target ends
  down,         // source has ended: the payload is why
  link,         // source (remote to you) is linked to target
  unlink,       // and is no more
  resolve,      // which actor has the name in the payload? (query)
  resolved,     // target has it, and answers the messages in the payload; or an error (query)
};

struct link_header {
  link_op op = link_op::message;
  std::uint64_t source = 0;  // actor ids; 0: nobody
  std::uint64_t target = 0;
  std::uint64_t number = 0;  // the message id, or the query
  // Set when the source lives on neither side: somebody passed its message on.
  std::optional<transport::node_identity> source_node{};
  bool operator==(const link_header&) const = default;
};

void encode_link_header(const link_header& h, transport::bytes& into);
struct decoded_link_frame {
  link_header header;
  std::span<const char> payload;
};
result<decoded_link_frame> decode_link_frame(std::span<const char> from);

// The payload of `resolved`.
struct resolved_name {
  std::string failure;  // why there is no such actor; empty when there is
  std::vector<std::string> message_types;
  bool operator==(const resolved_name&) const = default;
};
inline constexpr std::size_t max_published_name_bytes = 256;
transport::bytes encode_resolved(const resolved_name& what);
result<resolved_name> decode_resolved(std::span<const char> from);

}  // namespace tandem::actors
