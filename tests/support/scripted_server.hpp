// An HTTP server on loopback that answers as a test says, for the clients under test.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace tandem::tests {

// What the test sees of one request, and the bytes it answers with: each piece is one write. An
// empty last piece closes the connection.
struct seen_request {
  std::string method;
  std::string target;
  std::string authorization;
  std::string body;
};
using script = std::function<std::vector<std::string>(const seen_request&)>;

inline std::string json_reply(int status, const std::string& body) {
  return "HTTP/1.1 " + std::to_string(status) +
         " x\r\ncontent-type: application/json\r\ncontent-length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body;
}

inline std::string chunk(const std::string& bytes) {
  char size[20];
  std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
  return size + bytes + "\r\n";
}

// A whole event stream: its head, each piece of data, [DONE].
inline std::vector<std::string> event_reply(const std::vector<std::string>& data) {
  std::vector<std::string> pieces = {
      "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"};
  for (const std::string& one : data) pieces.push_back(chunk("data: " + one + "\n\n"));
  pieces.push_back(chunk("data: [DONE]\n\n") + "0\r\n\r\n");
  return pieces;
}

class scripted_server {
 public:
  explicit scripted_server(script answer) : answer_(std::move(answer)) {
    acceptor_.listen();
    accepting_ = std::thread([this] { accept(); });
  }
  ~scripted_server() {
    ending_ = true;
    // A last connection wakes the accept that nothing else ends.
    boost::system::error_code ignored;
    tcp::socket(context_).connect(acceptor_.local_endpoint(), ignored);
    accepting_.join();
    {
      const std::lock_guard lock(mutex_);
      for (auto& socket : open_) socket->shutdown(tcp::socket::shutdown_both, ignored);
    }
    for (std::thread& session : sessions_) session.join();
  }
  scripted_server(const scripted_server&) = delete;
  scripted_server& operator=(const scripted_server&) = delete;

  std::string address() const {
    return "http://127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port());
  }
  int connections() const { return connections_; }
  std::vector<seen_request> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  using tcp = boost::asio::ip::tcp;

  void accept() {
    for (;;) {
      auto socket = std::make_shared<tcp::socket>(context_);
      boost::system::error_code failed;
      acceptor_.accept(*socket, failed);
      if (failed || ending_) return;
      ++connections_;
      const std::lock_guard lock(mutex_);
      open_.push_back(socket);
      sessions_.emplace_back([this, socket] { serve(*socket); });
    }
  }

  void serve(tcp::socket& socket) {
    namespace http = boost::beast::http;
    boost::beast::flat_buffer buffer;
    boost::system::error_code failed;
    for (;;) {
      http::request<http::string_body> request;
      http::read(socket, buffer, request, failed);
      if (failed) return;
      seen_request seen{std::string(request.method_string()), std::string(request.target()),
                        std::string(request[http::field::authorization]), request.body()};
      {
        const std::lock_guard lock(mutex_);
        requests_.push_back(seen);
      }
      for (const std::string& piece : answer_(seen)) {
        if (piece.empty()) {
          socket.shutdown(tcp::socket::shutdown_both, failed);
          return;
        }
        boost::asio::write(socket, boost::asio::buffer(piece), failed);
        if (failed) return;
      }
    }
  }

  script answer_;
  boost::asio::io_context context_;
  tcp::acceptor acceptor_{context_, {boost::asio::ip::make_address("127.0.0.1"), 0}};
  std::atomic<bool> ending_{false};
  std::atomic<int> connections_{0};
  std::thread accepting_;
  mutable std::mutex mutex_;
  std::vector<seen_request> requests_;
  std::vector<std::shared_ptr<tcp::socket>> open_;
  std::vector<std::thread> sessions_;
};

}  // namespace tandem::tests
