// A hub of a few files on loopback, and ways for it to misbehave.
#pragma once

#include "kernels/ensure.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace tandem::test {

struct hub_request {
  std::string path;                            // with its query
  std::map<std::string, std::string> headers;  // names in lower case
  std::string header(const std::string& name) const {
    auto found = headers.find(name);
    return found == headers.end() ? std::string() : found->second;
  }
};

struct hub_reply {
  int status = 200;
  std::string body;
  std::vector<std::string> headers;
  // Sends this much of the body, though it announced all of it, and closes.
  std::optional<std::size_t> cut_after;
};

// Answers one request a connection. `answer` runs on the server's thread, one request at a time.
class hub_server {
 public:
  explicit hub_server(std::function<hub_reply(const hub_request&)> answer)
      : answer_(std::move(answer)), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* plain = reinterpret_cast<sockaddr*>(&address);
    socklen_t size = sizeof address;
    ensure(::bind(listener_, plain, size) == 0 && ::listen(listener_, 16) == 0 &&
               ::getsockname(listener_, plain, &size) == 0,
           "no loopback port for a test");
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~hub_server() {
    stopping_ = true;
    ::shutdown(listener_, SHUT_RDWR);  // wakes accept
    thread_.join();
    ::close(listener_);
  }
  hub_server(const hub_server&) = delete;
  hub_server& operator=(const hub_server&) = delete;

  std::string address() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::vector<hub_request> requests() const {
    std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void serve() {
    while (!stopping_) {
      int connection = ::accept(listener_, nullptr, nullptr);
      if (connection < 0) continue;
      serve_one(connection);
      ::close(connection);
    }
  }

  void serve_one(int connection) {
    std::string text;
    char buffer[4096];
    while (text.find("\r\n\r\n") == std::string::npos) {
      ssize_t count = ::recv(connection, buffer, sizeof buffer, 0);
      if (count <= 0) return;
      text.append(buffer, static_cast<std::size_t>(count));
    }
    hub_request request = parsed(text);
    {
      std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    hub_reply reply = answer_(request);
    std::string out = "HTTP/1.1 " + std::to_string(reply.status) + " x\r\nConnection: close\r\n";
    for (const auto& line : reply.headers) out += line + "\r\n";
    out += "Content-Length: " + std::to_string(reply.body.size()) + "\r\n\r\n";
    out += reply.body.substr(0, reply.cut_after.value_or(reply.body.size()));
    for (std::size_t sent = 0; sent < out.size();) {
      ssize_t count = ::send(connection, out.data() + sent, out.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) return;
      sent += static_cast<std::size_t>(count);
    }
  }

  static hub_request parsed(const std::string& text) {
    hub_request request;
    std::size_t line_end = text.find("\r\n");
    std::size_t path = text.find(' ') + 1;
    request.path = text.substr(path, text.find(' ', path) - path);
    while (text.compare(line_end, 4, "\r\n\r\n") != 0) {
      std::size_t start = line_end + 2;
      line_end = text.find("\r\n", start);
      std::size_t colon = text.find(':', start);
      std::string name = text.substr(start, colon - start);
      std::transform(name.begin(), name.end(), name.begin(), [](char c) {
        return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      });
      request.headers[name] = text.substr(colon + 2, line_end - colon - 2);
    }
    return request;
  }

  std::function<hub_reply(const hub_request&)> answer_;
  int listener_;
  std::uint16_t port_ = 0;
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;
  std::vector<hub_request> requests_;
  std::thread thread_;
};

// Answers as a hub does: all of `bytes`, or the rest that "Range: bytes=N-" asks for, unless
// If-Range names another version.
inline hub_reply file_reply(const hub_request& request, const std::string& bytes,
                            const std::string& etag) {
  hub_reply reply{200, bytes, {"ETag: " + etag}, std::nullopt};
  std::string range = request.header("range");
  std::string version = request.header("if-range");
  if (range.empty() || (!version.empty() && version != etag)) return reply;
  auto from = static_cast<std::size_t>(std::stoull(range.substr(6)));
  if (from >= bytes.size()) return {416, {}, {}, std::nullopt};
  reply.status = 206;
  reply.body = bytes.substr(from);
  reply.headers.push_back("Content-Range: bytes " + std::to_string(from) + "-" +
                          std::to_string(bytes.size() - 1) + "/" + std::to_string(bytes.size()));
  return reply;
}

}  // namespace tandem::test
