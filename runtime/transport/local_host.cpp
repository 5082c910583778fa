#include "runtime/transport/local_host.hpp"

#include "runtime/transport/address.hpp"

#include <fmt/format.h>

#include <sys/socket.h>
#include <unistd.h>

namespace tandem::transport {

result<std::string> local_host_towards(const std::string& there) {
  const auto where = address::parse(there);
  if (!where) return where.error();
  sockaddr_storage remote{};
  const socklen_t size = where->to_sockaddr(remote);
  const int probe = ::socket(remote.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);  // sends nothing
  sockaddr_storage here{};
  socklen_t here_size = sizeof here;
  const bool known = probe >= 0 &&
                     ::connect(probe, reinterpret_cast<const sockaddr*>(&remote), size) == 0 &&
                     ::getsockname(probe, reinterpret_cast<sockaddr*>(&here), &here_size) == 0;
  if (probe >= 0) ::close(probe);
  if (!known)
    return error{errc::unavailable, fmt::format("this machine has no way to {}", there), "address"};
  const auto local = address::from(here).to_string();
  return local.substr(0, local.rfind(':'));
}

}  // namespace tandem::transport
