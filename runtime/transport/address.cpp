#include "runtime/transport/address.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <memory>

namespace tandem::transport {

namespace {

error bad_address(std::string_view text, std::string_view why) {
  return {errc::bad_request, fmt::format("\"{}\" is no address: {}", text, why), "address"};
}

}  // namespace

result<address> address::parse(std::string_view text) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || text.size() > 300)
    return bad_address(text.substr(0, 300), "give host:port, as in 127.0.0.1:7000");
  std::string host(text.substr(0, colon));
  const std::string port(text.substr(colon + 1));
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  else if (host.find(':') != std::string::npos)
    return bad_address(text, "an IPv6 address stands in brackets, as in [::1]:7000");
  unsigned number = 0;
  const auto [end, fault] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (fault != std::errc() || end != port.data() + port.size() || number > 65'535 || host.empty())
    return bad_address(text, "the port is a number from 0 to 65535");
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int rc = getaddrinfo(host.c_str(), nullptr, &wanted, &found); rc != 0)
    return bad_address(text, gai_strerror(rc));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, freeaddrinfo);
  sockaddr_storage storage{};
  std::memcpy(&storage, found->ai_addr, std::min<std::size_t>(found->ai_addrlen, sizeof storage));
  address made = from(storage);
  made.port = static_cast<std::uint16_t>(number);
  return made;
}

address address::from(const sockaddr_storage& from) {
  address made;
  if (from.ss_family == AF_INET6) {
    sockaddr_in6 in{};
    std::memcpy(&in, &from, sizeof in);
    made.ipv6 = true;
    made.port = ntohs(in.sin6_port);
    std::memcpy(made.host.data(), &in.sin6_addr, 16);
  } else {
    sockaddr_in in{};
    std::memcpy(&in, &from, sizeof in);
    made.port = ntohs(in.sin_port);
    std::memcpy(made.host.data(), &in.sin_addr, 4);
  }
  return made;
}

std::string address::to_string() const {
  std::array<char, INET6_ADDRSTRLEN> text{};
  inet_ntop(ipv6 ? AF_INET6 : AF_INET, host.data(), text.data(), text.size());
  return ipv6 ? fmt::format("[{}]:{}", text.data(), port) : fmt::format("{}:{}", text.data(), port);
}

socklen_t address::to_sockaddr(sockaddr_storage& into) const {
  into = {};
  if (ipv6) {
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(port);
    std::memcpy(&in.sin6_addr, host.data(), 16);
    std::memcpy(&into, &in, sizeof in);
    return sizeof in;
  }
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = htons(port);
  std::memcpy(&in.sin_addr, host.data(), 4);
  std::memcpy(&into, &in, sizeof in);
  return sizeof in;
}

bool address::is_loopback() const {
  if (!ipv6) return host[0] == 127;
  return host[15] == 1 && std::all_of(host.begin(), host.end() - 1, [](auto b) { return b == 0; });
}

bool address::is_any() const {
  return std::all_of(host.begin(), host.end(), [](auto b) { return b == 0; });
}

result<std::string> interface_of(const address& where) {
  if (where.is_any()) return std::string();
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0)
    return error{errc::io, "the network interfaces of this machine cannot be listed", ""};
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(all, freeifaddrs);
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr) continue;
    const int family = one->ifa_addr->sa_family;
    if (family != (where.ipv6 ? AF_INET6 : AF_INET)) continue;
    sockaddr_storage storage{};
    std::memcpy(&storage, one->ifa_addr,
                family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in));
    const address its = address::from(storage);
    if (its.host == where.host || (where.is_loopback() && its.is_loopback()))
      return std::string(one->ifa_name);
  }
  return error{
      errc::bad_request,
      fmt::format("no network interface of this machine has the address {}", where.to_string()),
      "listen"};
}

}  // namespace tandem::transport
