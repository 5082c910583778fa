// One request on its way to the head and its answer on the way back. Everything but the upload's
// side happens on the thread of pass_through's io_context.
#pragma once

#include "gateway/byte_stream.hpp"
#include "gateway/http.hpp"
#include "gateway/pass_through.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace tandem::gateway {

// Where to, and how.
struct head_line {
  head_place place;
  std::shared_ptr<boost::asio::ssl::context> tls;  // null: plain
};

// What "via" says on the way to the head.
inline constexpr std::string_view via_door = "1.1 tandem-door";

// The head of a request as it is passed on. `chunked`: its body follows piece by piece.
std::string request_head(const http_request& request, const head_place& to, bool chunked);

class passage final : public std::enable_shared_from_this<passage> {
 public:
  // Bytes of an upload that may wait for the head.
  static constexpr std::size_t waiting_bytes_max = 256 << 10;
  // Answers up to this size go back whole, with their length.
  static constexpr std::size_t whole_bytes_max = 1 << 20;

  passage(boost::asio::io_context& io, head_line line, std::chrono::milliseconds silence);

  // `out`: what is to be sent first, maybe all.
  void start(std::string out);
  void answer(std::shared_ptr<responder> to);
  // A stream without an end of its own ends now.
  void cut_stream();
  void close();

  // The upload's side, any thread.
  result<void> send_piece(std::string_view bytes);
  void send_end();

 private:
  using error_code = boost::system::error_code;

  void connect();
  void open();
  void flush();
  void on_written(error_code ec, std::size_t bytes);
  void read();
  void on_read(error_code ec, std::size_t bytes);
  void parse();
  void on_head();
  void on_piece(std::size_t bytes);
  void on_end();
  void fail(error why);
  void arm(std::chrono::milliseconds length);
  error cut_short() const;
  void send_later(std::string bytes);

  boost::asio::io_context& io_;
  const head_line line_;
  const std::chrono::milliseconds silence_;
  boost::asio::ip::tcp::resolver resolver_;
  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer timer_;
  std::unique_ptr<byte_stream> stream_;
  bool is_open_ = false;
  bool is_closed_ = false;

  std::string out_;
  std::string sending_;
  std::size_t sent_ = 0;

  std::array<char, 16384> chunk_;
  std::string in_;
  std::array<char, 65536> piece_;
  std::optional<boost::beast::http::response_parser<boost::beast::http::buffer_body>> parser_;
  bool head_read_ = false;
  bool is_stream_ = false;
  bool reading_ = false;

  std::shared_ptr<responder> to_;
  std::optional<error> failure_;  // before anybody could be told
  http_response response_;

  std::mutex mutex_;  // of what follows: shared with the upload's side
  std::condition_variable moved_;
  std::size_t waiting_bytes_ = 0;
  bool is_over_ = false;  // nothing of the body is wanted any more
  std::optional<error> refusal_;
};

}  // namespace tandem::gateway
