// A connection as bytes: plain TCP or TLS behind one face, so that a session is written once. At
// most one read and one write are under way at a time; all calls come from the connection's thread.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/system/error_code.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace tandem::gateway {

class byte_stream {
 public:
  // Never called from within the call it was given to.
  using done = std::function<void(boost::system::error_code, std::size_t)>;

  virtual ~byte_stream() = default;
  virtual void open(done then) = 0;  // TLS: the handshake
  virtual void read_some(boost::asio::mutable_buffer into, done then) = 0;
  virtual void write_some(boost::asio::const_buffer from, done then) = 0;
  virtual void finish(done then) = 0;  // says that no more bytes follow; reading goes on
  virtual void close() = 0;            // what is under way ends with an error
};

std::unique_ptr<byte_stream> plain_stream(boost::asio::ip::tcp::socket socket);
std::unique_ptr<byte_stream> tls_stream(boost::asio::ip::tcp::socket socket,
                                        boost::asio::ssl::context& context);
// The side that asks.
std::unique_ptr<byte_stream> tls_client_stream(boost::asio::ip::tcp::socket socket,
                                               boost::asio::ssl::context& context);

// "127.0.0.1:8000", "[::1]:8000"
std::string endpoint_text(const boost::asio::ip::tcp::endpoint& endpoint);

}  // namespace tandem::gateway
