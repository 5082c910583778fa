// A client that can do what no HTTP library would: half requests, silence, resets. Every wait has a
// deadline, after which the test fails.
#pragma once

#include "gateway/server.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

namespace tandem::gateway::testing {

using namespace std::chrono_literals;
using tandem::server_settings;
constexpr auto patience = 10s;

struct client_response {
  int status = 0;
  std::map<std::string, std::string> headers;
  std::string body;
  bool complete = false;  // ended as its framing says
};

class client {
 public:
  explicit client(int port, int receive_buffer_bytes = 0)
      : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer_bytes > 0)
      ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes,
                   sizeof receive_buffer_bytes);
    const int on = 1;
    ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const auto* generic = reinterpret_cast<const sockaddr*>(&address);
    if (::connect(socket_, generic, sizeof address) != 0)
      throw std::runtime_error("connect: refused");
  }
  ~client() { leave(); }
  client(const client&) = delete;
  client& operator=(const client&) = delete;

  // False when the server has closed.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }

  void leave() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }
  void leave_with_reset() {
    const linger at_once{1, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    leave();
  }
  void close_sending_half() { ::shutdown(socket_, SHUT_WR); }

  // Everything up to and including `end`.
  std::string read_until(std::string_view end) {
    for (std::size_t from = 0;;) {
      const std::size_t found = input_.find(end, from);
      if (found != std::string::npos) return take(found + end.size());
      from = input_.size() < end.size() ? 0 : input_.size() - end.size();
      if (!receive()) throw std::runtime_error("the connection ended after: " + input_);
    }
  }

  client_response read_response(bool to_head = false) {
    client_response response;
    std::string head = read_until("\r\n\r\n");
    response.status = std::stoi(head.substr(9, 3));
    for (std::size_t at = head.find("\r\n") + 2; at + 2 < head.size();) {
      const std::size_t line_end = head.find("\r\n", at);
      const std::size_t colon = head.find(": ", at);
      response.headers[head.substr(at, colon - at)] = head.substr(colon + 2, line_end - colon - 2);
      at = line_end + 2;
    }
    if (response.status < 200 || response.status == 204 || to_head) {
      response.complete = true;
    } else if (const auto length = response.headers.find("content-length");
               length != response.headers.end()) {
      const std::size_t bytes = std::stoul(length->second);
      while (input_.size() < bytes && receive()) {
      }
      response.complete = input_.size() >= bytes;
      response.body = take(std::min(bytes, input_.size()));
    } else if (response.headers.count("transfer-encoding") == 1) {
      while (auto chunk = read_chunk()) {
        if (chunk->empty()) {
          response.complete = true;
          break;
        }
        response.body += *chunk;
      }
    } else {
      while (receive()) {
      }
      response.body = take(input_.size());
      response.complete = true;
    }
    return response;
  }

  // One chunk's bytes; empty for the last, nothing when the connection ended before it did.
  std::optional<std::string> read_chunk() {
    try {
      const std::size_t bytes = std::stoul(read_until("\r\n"), nullptr, 16);
      std::string chunk;
      while (input_.size() < bytes + 2)
        if (!receive()) return std::nullopt;
      chunk = take(bytes);
      take(2);
      return chunk;
    } catch (const std::runtime_error&) {
      return std::nullopt;
    }
  }

  // Waits for the server to close, whatever it still sends.
  bool closed_by_server() {
    while (receive()) {
    }
    return true;
  }
  std::string rest() {
    closed_by_server();
    return take(input_.size());
  }

  int native() const { return socket_; }

 private:
  bool receive() {
    pollfd ready{socket_, POLLIN, 0};
    const int wait_ms = static_cast<int>(std::chrono::milliseconds(patience).count());
    if (::poll(&ready, 1, wait_ms) != 1) throw std::logic_error("the server stayed silent");
    char bytes[65536];
    const ssize_t got = ::recv(socket_, bytes, sizeof bytes, 0);
    if (got <= 0) return false;
    input_.append(bytes, static_cast<std::size_t>(got));
    return true;
  }

  std::string take(std::size_t bytes) {
    std::string taken = input_.substr(0, bytes);
    input_.erase(0, bytes);
    return taken;
  }

  int socket_ = -1;
  std::string input_;
};

inline std::string get(std::string_view path, std::string_view more_headers = {}) {
  return "GET " + std::string(path) + " HTTP/1.1\r\nhost: localhost\r\n" +
         std::string(more_headers) + "\r\n";
}

inline std::string post(std::string_view path, std::string_view body,
                        std::string_view more_headers = {}) {
  return "POST " + std::string(path) + " HTTP/1.1\r\nhost: localhost\r\n" +
         std::string(more_headers) + "content-length: " + std::to_string(body.size()) + "\r\n\r\n" +
         std::string(body);
}

// A value one thread sets and another waits for.
template <class Value>
class promised {
 public:
  void set(Value value) {
    const std::lock_guard lock(mutex_);
    value_ = std::move(value);
    set_.notify_all();
  }
  Value wait() {
    std::unique_lock lock(mutex_);
    if (!set_.wait_for(lock, patience, [&] { return value_.has_value(); }))
      throw std::logic_error("what the test waits for did not happen");
    return *value_;
  }
  bool happened() {
    const std::lock_guard lock(mutex_);
    return value_.has_value();
  }

 private:
  std::mutex mutex_;
  std::condition_variable set_;
  std::optional<Value> value_;
};

// Until the other side's thread has done what makes `holds` true.
inline bool eventually(const std::function<bool()>& holds) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::yield();
  }
  return true;
}

inline route make_route(std::string method, std::string path, http_handler handler,
                        access needs = access::open) {
  route made;
  made.method = std::move(method);
  made.path = std::move(path);
  made.needs = needs;
  made.handler = std::move(handler);
  return made;
}

inline http_response text(std::string body) {
  http_response response;
  response.content_type = "text/plain";
  response.body = std::move(body);
  return response;
}

// GET /hello says hello; POST /echo gives the body back; what a test needs besides, it adds.
inline std::shared_ptr<router> basic_routes() {
  auto routes = std::make_shared<router>();
  routes->add(
      make_route("GET", "/hello", [](const auto&, const auto& to) { to->send(text("hello")); }));
  routes->add(make_route(
      "POST", "/echo", [](const auto& request, const auto& to) { to->send(text(request->body)); }));
  return routes;
}

inline server_settings any_port() {
  server_settings settings;
  settings.port = 0;
  return settings;
}

inline std::unique_ptr<server> started(const server_settings& settings,
                                       std::shared_ptr<const router> routes) {
  auto made = server::create(settings, std::move(routes));
  if (!made) throw std::runtime_error(made.error().detail);
  (*made)->start();
  return std::move(*made);
}

}  // namespace tandem::gateway::testing
