// Where a node listens: an IPv4 or IPv6 address and a port. Names are resolved once, when an
// address is read; on the wire and in identities only numbers travel.
#pragma once

#include "runtime/result.hpp"

#include <sys/socket.h>

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::transport {

struct address {
  std::array<std::uint8_t, 16> host{};  // IPv4 in the first four
  std::uint16_t port = 0;
  bool ipv6 = false;

  auto operator<=>(const address&) const = default;

  // "127.0.0.1:7000", "[::1]:7000", "localhost:7000", "node3:7000".
  static result<address> parse(std::string_view text);
  static address from(const sockaddr_storage& from);

  std::string to_string() const;
  socklen_t to_sockaddr(sockaddr_storage& into) const;
  bool is_loopback() const;  // 127.0.0.0/8 and ::1: other machines cannot reach it
  bool is_any() const;       // 0.0.0.0 and ::, every interface
};

// The network interface that owns this address ("lo", "eth0"); empty for every interface.
result<std::string> interface_of(const address& where);

}  // namespace tandem::transport
