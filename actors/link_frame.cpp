#include "actors/link_frame.hpp"

#include <fmt/format.h>

namespace tandem::actors {

namespace {

using transport::wire_reader;
using transport::wire_writer;

constexpr std::size_t max_message_types = 512;
constexpr std::size_t max_message_type_bytes = 8 << 10;

}  // namespace

void encode_link_header(const link_header& h, transport::bytes& into) {
  wire_writer out(into);
  out.number(static_cast<std::uint8_t>(h.op));
  out.number(static_cast<std::uint8_t>(h.source_node ? 1 : 0));
  out.number(h.source);
  out.number(h.target);
  out.number(h.number);
  if (h.source_node) transport::write_identity(out, *h.source_node);
}

result<decoded_link_frame> decode_link_frame(std::span<const char> from) {
  wire_reader in(from);
  decoded_link_frame frame;
  const auto op = in.number<std::uint8_t>();
  const auto routed = in.number<std::uint8_t>();
  frame.header.source = in.number<std::uint64_t>();
  frame.header.target = in.number<std::uint64_t>();
  frame.header.number = in.number<std::uint64_t>();
  if (routed == 1) frame.header.source_node = transport::read_identity(in);
  if (!in.good())
    return error{errc::bad_request,
                 fmt::format("a frame of {} bytes is cut within its header", from.size()), ""};
  if (op < static_cast<std::uint8_t>(link_op::message) ||
      op > static_cast<std::uint8_t>(link_op::resolved) || routed > 1)
    return error{errc::bad_request, fmt::format("a frame of unknown kind {}/{}", op, routed), ""};
  frame.header.op = static_cast<link_op>(op);
  frame.payload = in.rest();
  return frame;
}

transport::bytes encode_resolved(const resolved_name& what) {
  transport::bytes out;
  wire_writer writer(out);
  writer.counted(std::string_view(what.failure).substr(0, transport::max_reason_bytes));
  writer.number(static_cast<std::uint16_t>(what.message_types.size()));
  for (const auto& one : what.message_types) writer.counted(one);
  return out;
}

result<resolved_name> decode_resolved(std::span<const char> from) {
  wire_reader in(from);
  resolved_name what;
  what.failure = in.counted(transport::max_reason_bytes);
  const std::size_t count = in.number<std::uint16_t>();
  if (count > max_message_types)
    return error{
        errc::bad_request,
        fmt::format("an actor of {} message types, {} are allowed", count, max_message_types), ""};
  for (std::size_t i = 0; i < count && in.good(); ++i)
    what.message_types.push_back(in.counted(max_message_type_bytes));
  if (!in.at_end())
    return error{errc::bad_request, fmt::format("an answer of {} bytes is cut", from.size()), ""};
  return what;
}

}  // namespace tandem::actors
