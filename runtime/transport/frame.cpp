#include "runtime/transport/frame.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::transport {

namespace {

constexpr std::uint32_t magic = 0x4d444e54;  // "TNDM"

error bad(std::string detail) { return {errc::bad_request, std::move(detail), "frame"}; }

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

// It is shown to a person: one line, whatever the peer wrote.
std::string one_line(std::string text) {
  std::replace_if(text.begin(), text.end(), is_control, ' ');
  return text;
}

}  // namespace

std::string node_identity::to_string() const {
  return fmt::format("{}/{:08x}", listen.to_string(), incarnation);
}

void write_identity(wire_writer& out, const node_identity& who) {
  out.number(static_cast<std::uint8_t>(who.listen.ipv6 ? 1 : 0));
  out.raw(std::span<const std::uint8_t>(who.listen.host));
  out.number(who.listen.port);
  out.number(who.incarnation);
}

node_identity read_identity(wire_reader& in) {
  node_identity who;
  who.listen.ipv6 = in.number<std::uint8_t>() == 1;
  in.raw(who.listen.host);
  who.listen.port = in.number<std::uint16_t>();
  who.incarnation = in.number<std::uint32_t>();
  return who;
}

bool is_name(std::string_view text) {
  return text.size() <= max_name_bytes && std::none_of(text.begin(), text.end(), is_control);
}

bytes encode_record(record_kind kind, std::span<const char> body) {
  ensure(body.size() < max_record_bytes, "a record above its bound");
  bytes out;
  out.reserve(body.size() + 5);
  wire_writer writer(out);
  writer.number(static_cast<std::uint32_t>(body.size() + 1));
  writer.number(static_cast<std::uint8_t>(kind));
  writer.raw(body);
  return out;
}

bytes encode_body(const hello& h) {
  bytes out;
  wire_writer writer(out);
  writer.number(magic);
  writer.number(h.protocol);
  writer.counted(h.build);
  writer.counted(h.cluster);
  write_identity(writer, h.node);
  writer.raw(std::span<const std::uint8_t>(h.fresh));
  return out;
}

bytes encode_body(const proof& p) {
  bytes out;
  wire_writer writer(out);
  writer.raw(std::span<const std::uint8_t>(p.proves));
  writer.counted(p.worker_address);
  return out;
}

bytes encode_body(const ping& p) {
  bytes out;
  wire_writer(out).number(p.frames_taken);
  return out;
}

bytes encode_body(const bye& b) {
  bytes out;
  wire_writer writer(out);
  writer.number(b.frames_sent);
  writer.counted(std::string_view(b.reason).substr(0, max_reason_bytes));
  return out;
}

bytes encode_refusal(std::string_view reason) {
  bytes out;
  wire_writer(out).counted(reason.substr(0, max_reason_bytes));
  return out;
}

result<next_record> decode_record(std::span<const char> from) {
  if (from.size() < 5) return next_record{};
  wire_reader in(from);
  const std::size_t size = in.number<std::uint32_t>();
  if (size == 0 || size > max_record_bytes)
    return bad(fmt::format("a record of {} bytes, where 1 to {} are allowed: no tandem node speaks",
                           size, max_record_bytes));
  const auto kind = in.number<std::uint8_t>();
  if (kind < static_cast<std::uint8_t>(record_kind::hello) ||
      kind > static_cast<std::uint8_t>(record_kind::bye))
    return bad(fmt::format("a record of kind {}, where 1 to 8 are known", kind));
  if (from.size() < size + 4) return next_record{};
  return next_record{size + 4, {static_cast<record_kind>(kind), from.subspan(5, size - 1)}};
}

result<hello> decode_hello(std::span<const char> body) {
  wire_reader in(body);
  if (in.number<std::uint32_t>() != magic)
    return bad("the greeting does not begin as a tandem node's does");
  hello h;
  h.protocol = in.number<std::uint16_t>();
  if (in.good() && h.protocol != protocol_version) return h;
  h.build = in.counted(max_name_bytes);
  h.cluster = in.counted(max_name_bytes);
  h.node = read_identity(in);
  in.raw(h.fresh);
  if (!in.at_end())
    return bad(fmt::format("a greeting of {} bytes that is cut or too long", body.size()));
  if (!is_name(h.build) || !is_name(h.cluster))
    return bad("a greeting with a name that cannot be printed");
  return h;
}

result<proof> decode_proof(std::span<const char> body) {
  wire_reader in(body);
  proof p;
  in.raw(p.proves);
  const auto where = in.counted(max_worker_address_bytes);
  if (!in.at_end() || where.empty())
    return bad(fmt::format("a proof of {} bytes that is cut or too long", body.size()));
  p.worker_address.assign(where.begin(), where.end());
  return p;
}

result<ping> decode_ping(std::span<const char> body) {
  wire_reader in(body);
  ping p;
  p.frames_taken = in.number<std::uint64_t>();
  if (!in.at_end()) return bad(fmt::format("a ping of {} bytes, where 8 belong", body.size()));
  return p;
}

result<bye> decode_bye(std::span<const char> body) {
  wire_reader in(body);
  bye b;
  b.frames_sent = in.number<std::uint64_t>();
  b.reason = one_line(in.counted(max_reason_bytes));
  if (!in.at_end()) return bad(fmt::format("a farewell of {} bytes that is cut", body.size()));
  return b;
}

result<std::string> decode_refusal(std::span<const char> body) {
  wire_reader in(body);
  auto reason = one_line(in.counted(max_reason_bytes));
  if (!in.at_end()) return bad(fmt::format("a refusal of {} bytes that is cut", body.size()));
  return reason;
}

void encode_frame_header(const frame_header& h, bytes& into) {
  ensure(h.attachment_bytes.size() <= max_attachments, "more attachments than a frame can carry");
  wire_writer writer(into);
  writer.number(h.token);
  writer.number(h.sequence);
  writer.number(h.body_bytes);
  writer.number(static_cast<std::uint16_t>(h.attachment_bytes.size()));
  writer.number(static_cast<std::uint16_t>(h.body_in_header ? 1 : 0));
  for (const auto size : h.attachment_bytes) writer.number(size);
}

result<decoded_frame> decode_frame_header(std::span<const char> from, std::uint64_t data_bytes,
                                          const frame_bounds& bounds) {
  wire_reader in(from);
  decoded_frame frame;
  frame_header& h = frame.header;
  h.token = in.number<std::uint64_t>();
  h.sequence = in.number<std::uint64_t>();
  h.body_bytes = in.number<std::uint32_t>();
  const std::size_t count = in.number<std::uint16_t>();
  const auto flags = in.number<std::uint16_t>();
  if (!in.good()) return bad(fmt::format("a frame header of {} bytes is cut", from.size()));
  if (flags > 1) return bad(fmt::format("a frame with unknown flags {:#x}", flags));
  h.body_in_header = flags == 1;
  if (count > max_attachments)
    return bad(fmt::format("a frame with {} attachments, {} are allowed", count, max_attachments));
  if (h.body_bytes > bounds.body_bytes)
    return bad(
        fmt::format("a message of {} bytes, {} are allowed", h.body_bytes, bounds.body_bytes));
  std::uint64_t all = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto size = in.number<std::uint64_t>();
    if (size > bounds.attachment_bytes - all)
      return bad(fmt::format("attachments of more than the {} bytes that are allowed",
                             bounds.attachment_bytes));
    all += size;
    h.attachment_bytes.push_back(size);
  }
  if (h.body_in_header) frame.body = in.raw(h.body_bytes);
  if (!in.at_end())
    return bad(fmt::format("a frame header of {} bytes does not hold what it says", from.size()));
  const std::uint64_t expected = all + (h.body_in_header ? 0 : h.body_bytes);
  if (expected != data_bytes)
    return bad(fmt::format("a frame of {} bytes where its header says {}", data_bytes, expected));
  return frame;
}

}  // namespace tandem::transport
