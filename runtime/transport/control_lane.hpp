// One TCP connection that carries records: handshake, pings, farewell. Never blocks, holds at most
// one record of the peer and a few of ours. It is also the lane on which a peer's death shows
// first: the kernel closes it when the process ends, whatever UCX runs on.
#pragma once

#include "runtime/transport/frame.hpp"

#include <optional>
#include <string>
#include <utility>

namespace tandem::transport {

class file_descriptor {
 public:
  file_descriptor() = default;
  explicit file_descriptor(int fd) : fd_(fd) {}
  file_descriptor(file_descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  file_descriptor& operator=(file_descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~file_descriptor();
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

result<file_descriptor> listen_on(const address& where);
address bound_address(const file_descriptor& socket);

class control_lane {
 public:
  explicit control_lane(file_descriptor socket);
  // The connection is under way when this returns.
  static result<control_lane> dial(const address& where);

  int fd() const { return socket_.get(); }
  bool wants_to_write() const { return sent_ < out_.size(); }
  std::size_t bytes_unsent() const { return out_.size() - sent_; }

  // Queues and sends what goes. An error: the connection is lost.
  result<void> send(const bytes& record);
  result<void> flush();
  // Reads what is there, up to one record ahead. An error: closed or lost.
  result<void> receive();
  // The next whole record; valid until the next call. Empty: more has to come.
  result<std::optional<record>> next();

 private:
  file_descriptor socket_;
  bytes in_;
  std::size_t used_ = 0;  // of in_
  bytes out_;
  std::size_t sent_ = 0;  // of out_
};

}  // namespace tandem::transport
