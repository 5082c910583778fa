#include "runtime/transport/control_lane.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace tandem::transport {

namespace {

error system_error(std::string_view what, int code) {
  return {errc::io, fmt::format("{}: {}", what, std::strerror(code)), ""};
}

const sockaddr* as_sockaddr(const sockaddr_storage& from) {
  return static_cast<const sockaddr*>(static_cast<const void*>(&from));
}

}  // namespace

file_descriptor::~file_descriptor() {
  if (fd_ >= 0) close(fd_);
}

result<file_descriptor> listen_on(const address& where) {
  sockaddr_storage storage{};
  const socklen_t size = where.to_sockaddr(storage);
  file_descriptor made(socket(storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!made) return system_error("no socket", errno);
  const int on = 1;
  setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(made.get(), as_sockaddr(storage), size) != 0 || listen(made.get(), 1024) != 0)
    return system_error(fmt::format("cannot listen on {}", where.to_string()), errno);
  return made;
}

address bound_address(const file_descriptor& socket) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  getsockname(socket.get(), static_cast<sockaddr*>(static_cast<void*>(&storage)), &size);
  return address::from(storage);
}

control_lane::control_lane(file_descriptor socket) : socket_(std::move(socket)) {
  const int on = 1;
  setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

result<control_lane> control_lane::dial(const address& where) {
  sockaddr_storage storage{};
  const socklen_t size = where.to_sockaddr(storage);
  file_descriptor made(socket(storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!made) return system_error("no socket", errno);
  if (connect(made.get(), as_sockaddr(storage), size) != 0 && errno != EINPROGRESS)
    return system_error(fmt::format("cannot reach {}", where.to_string()), errno);
  return control_lane(std::move(made));
}

result<void> control_lane::send(const bytes& record) {
  if (sent_ == out_.size()) {
    out_.clear();
    sent_ = 0;
  }
  out_.insert(out_.end(), record.begin(), record.end());
  return flush();
}

result<void> control_lane::flush() {
  while (sent_ < out_.size()) {
    const auto n = ::send(socket_.get(), out_.data() + sent_, out_.size() - sent_,
                          MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      sent_ += static_cast<std::size_t>(n);
      continue;
    }
    if (errno == EINTR) continue;
    // ENOTCONN: the connection is still being made.
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOTCONN) return {};
    return system_error("the connection is lost", errno);
  }
  return {};
}

result<void> control_lane::receive() {
  in_.erase(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(used_));
  used_ = 0;
  while (in_.size() < max_record_bytes + 4) {
    const std::size_t before = in_.size();
    in_.resize(max_record_bytes + 4);
    const auto n = recv(socket_.get(), in_.data() + before, in_.size() - before, MSG_DONTWAIT);
    const int code = errno;
    in_.resize(before + (n > 0 ? static_cast<std::size_t>(n) : 0));
    if (n > 0) continue;
    if (n == 0) return error{errc::unavailable, "its process closed the connection", ""};
    if (code == EINTR) continue;
    if (code == EAGAIN || code == EWOULDBLOCK) return {};
    return system_error("the connection is lost", code);
  }
  return {};
}

result<std::optional<record>> control_lane::next() {
  auto found = decode_record(std::span<const char>(in_).subspan(used_));
  if (!found) return found.error();
  if (found->taken == 0) return std::optional<record>();
  used_ += found->taken;
  return std::optional<record>(found->what);
}

}  // namespace tandem::transport
