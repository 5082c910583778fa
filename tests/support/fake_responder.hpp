// What an endpoint answered, kept for a test to look at.
#pragma once

#include "gateway/http.hpp"
#include "kernels/ensure.hpp"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::test {

class fake_responder final : public gateway::responder {
 public:
  int status = 0;  // 0: not answered yet
  std::string content_type;
  gateway::header_list headers;
  std::string body;
  bool streamed = false;
  bool ended = false;
  int pieces = 0;  // of send_pieces
  std::string heartbeat_bytes;
  std::string heartbeat_type;

  void send(gateway::http_response response) override {
    ensure(!ended && !streamed, "one answer a request");
    if (status == 0) {
      status = response.status;
      content_type = response.content_type;
      headers = std::move(response.headers);
    }
    body += response.body;
    ended = true;
  }
  void begin(int status_code, std::string type, gateway::header_list head) override {
    ensure(!ended && !streamed, "one answer a request");
    streamed = true;
    if (status != 0) return;  // begun by a heartbeat
    status = status_code;
    content_type = std::move(type);
    headers = std::move(head);
  }
  void write(std::string bytes) override {
    ensure(streamed && !ended, "written between begin and end");
    body += bytes;
  }
  void end() override {
    ensure(streamed && !ended, "ended once");
    ended = true;
  }
  void send_pieces(gateway::http_response head, std::uint64_t bytes,
                   gateway::body_source source) override {
    ensure(!ended && !streamed, "one answer a request");
    status = head.status;
    content_type = head.content_type;
    headers = std::move(head.headers);
    while (body.size() < bytes) {
      auto piece = source();
      ensure(piece.has_value() && !piece->empty(), "an answer is as long as it says");
      body += *piece;
      ++pieces;
    }
    ensure(body.size() == bytes, "an answer is as long as it says");
    ended = true;
  }
  void on_taken(std::function<void()> callback) override { callback(); }
  void heartbeat(std::string bytes, std::string type) override {
    heartbeat_bytes = std::move(bytes);
    heartbeat_type = std::move(type);
  }
  void on_gone(std::function<void()> callback) override { gone_ = std::move(callback); }

  // The server's side: silence lasted, the client left.
  void beat() {
    if (status == 0) {
      status = 200;
      content_type = heartbeat_type;
    }
    body += heartbeat_bytes;
  }
  void leave() {
    if (gone_) gone_();
  }

  std::string header(std::string_view name) const {
    for (const auto& [key, value] : headers)
      if (key == name) return value;
    return {};
  }

 private:
  std::function<void()> gone_;
};

}  // namespace tandem::test
