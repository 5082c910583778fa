#include "actors/remote_node.hpp"

#include <algorithm>

namespace tandem::actors {

namespace {

// Of the 20 bytes: the port and the address first, since CAF hashes the first eight.
constexpr std::size_t address_at = 2;
constexpr std::size_t family_at = 18;
constexpr std::uint8_t ipv4 = 4;
constexpr std::uint8_t ipv6 = 6;

}  // namespace

caf::node_id to_node_id(const transport::node_identity& who) {
  caf::node_id::default_data::host_id_type host{};
  host[0] = static_cast<std::uint8_t>(who.listen.port >> 8);
  host[1] = static_cast<std::uint8_t>(who.listen.port);
  std::copy(who.listen.host.begin(), who.listen.host.end(), host.begin() + address_at);
  host[family_at] = who.listen.ipv6 ? ipv6 : ipv4;
  return caf::make_node_id(who.incarnation, host);
}

std::optional<transport::node_identity> to_identity(const caf::node_id& id) {
  if (!id) return std::nullopt;
  const auto* data = dynamic_cast<const caf::node_id::default_data*>(&*id);
  if (data == nullptr) return std::nullopt;
  const auto host = data->host_id();
  if (host[family_at] != ipv4 && host[family_at] != ipv6) return std::nullopt;
  transport::node_identity who;
  who.incarnation = data->process_id();
  who.listen.port = static_cast<std::uint16_t>(host[0] << 8 | host[1]);
  who.listen.ipv6 = host[family_at] == ipv6;
  std::copy_n(host.begin() + address_at, who.listen.host.size(), who.listen.host.begin());
  return who;
}

}  // namespace tandem::actors
