#include "gateway/byte_stream.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/ssl/stream.hpp>

#include <utility>

namespace tandem::gateway {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

class plain final : public byte_stream {
 public:
  explicit plain(tcp::socket socket) : socket_(std::move(socket)) {}

  void open(done then) override { report_success(std::move(then)); }
  void read_some(asio::mutable_buffer into, done then) override {
    socket_.async_read_some(into, std::move(then));
  }
  void write_some(asio::const_buffer from, done then) override {
    socket_.async_write_some(from, std::move(then));
  }
  void finish(done then) override {
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
    report_success(std::move(then));
  }
  void close() override {
    error_code ignored;
    socket_.close(ignored);
  }

 private:
  void report_success(done then) {
    asio::post(socket_.get_executor(), [then = std::move(then)] { then({}, 0); });
  }

  tcp::socket socket_;
};

class tls final : public byte_stream {
 public:
  tls(tcp::socket socket, asio::ssl::context& context, asio::ssl::stream_base::handshake_type side)
      : stream_(std::move(socket), context), side_(side) {}

  void open(done then) override {
    stream_.async_handshake(side_, [then = std::move(then)](error_code ec) { then(ec, 0); });
  }
  void read_some(asio::mutable_buffer into, done then) override {
    stream_.async_read_some(into, std::move(then));
  }
  void write_some(asio::const_buffer from, done then) override {
    stream_.async_write_some(from, std::move(then));
  }
  void finish(done then) override {
    stream_.async_shutdown([then = std::move(then)](error_code ec) { then(ec, 0); });
  }
  void close() override {
    error_code ignored;
    stream_.next_layer().close(ignored);
  }

 private:
  asio::ssl::stream<tcp::socket> stream_;
  const asio::ssl::stream_base::handshake_type side_;
};

}  // namespace

std::unique_ptr<byte_stream> plain_stream(tcp::socket socket) {
  return std::make_unique<plain>(std::move(socket));
}

std::unique_ptr<byte_stream> tls_stream(tcp::socket socket, asio::ssl::context& context) {
  return std::make_unique<tls>(std::move(socket), context, asio::ssl::stream_base::server);
}

std::unique_ptr<byte_stream> tls_client_stream(tcp::socket socket, asio::ssl::context& context) {
  return std::make_unique<tls>(std::move(socket), context, asio::ssl::stream_base::client);
}

std::string endpoint_text(const tcp::endpoint& endpoint) {
  const auto address = endpoint.address();
  const std::string port = ":" + std::to_string(endpoint.port());
  return (address.is_v6() ? "[" + address.to_string() + "]" : address.to_string()) + port;
}

}  // namespace tandem::gateway
