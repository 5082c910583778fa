// One connection: reads requests, has them handled one after the other, writes the answers in
// order. A read is under way at all times, also while a request is handled, so that a client that
// leaves is noticed at once; what it sends ahead waits in a bounded buffer. All on the connection's
// lane.
#pragma once

#include "gateway/answer.hpp"
#include "gateway/byte_stream.hpp"
#include "gateway/request_parser.hpp"
#include "gateway/server_state.hpp"
#include "gateway/upload.hpp"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace tandem::gateway {

class session final : public std::enable_shared_from_this<session> {
 public:
  session(std::shared_ptr<lane> home, std::shared_ptr<server_state> state,
          std::unique_ptr<byte_stream> stream, const boost::asio::ip::tcp::endpoint& peer);
  ~session();
  session(const session&) = delete;
  session& operator=(const session&) = delete;

  void start();
  void start_refused();  // one connection too many: 503 and close
  void drain();          // close when idle, else after the running answer
  void close();

 private:
  using clock = std::chrono::steady_clock;
  using time_point = clock::time_point;
  static constexpr time_point never = time_point::max();
  // Output at which no further pipelined request is begun, nor more of an answer taken.
  static constexpr std::size_t queued_bytes_high = 64 << 10;

  // In.
  void read();
  void on_read(boost::system::error_code ec, std::size_t bytes);
  void on_input_end(boost::system::error_code ec);
  void advance();
  bool parse();
  void on_head();
  void on_request();
  std::optional<http_response> find_route(const http_request& request);
  void answer_options(const http_request& request);
  void run_handler(http_request request);
  void run_off_lane(http_request request);
  bool hold_body(std::size_t bytes);
  std::optional<http_response> open_upload(const http_request& request);
  void pass_body(std::size_t least);
  void on_upload_progress();
  void drop_upload();

  // Out.
  void open_answer(const http_request& request, bool keep_alive);
  void refuse(http_response response, bool keep_alive);
  void collect();
  void finish_answer(const answer::progress& last);
  void flush();
  void write_some();
  void on_written(boost::system::error_code ec, std::size_t bytes);
  void linger();
  static void recycle(std::string& buffer);  // empty, for the next bytes

  // Time.
  void arm();
  void on_timer();
  void on_late_input();

  bool idle() const;

  const std::shared_ptr<lane> home_;  // first: what follows lives on its io_context
  const std::shared_ptr<server_state> state_;
  const std::unique_ptr<byte_stream> stream_;
  const std::string peer_;
  const bool from_loopback_;

  std::array<char, 8192> chunk_;
  std::string input_;  // read, not yet parsed
  bool reading_ = false;
  bool input_ended_ = false;
  std::optional<request_parser> parser_;  // while a request is being read
  std::size_t body_bytes_held_ = 0;       // of it, counted in state_
  std::optional<http_response> refused_;  // what it will be answered once its body is read
  router::match match_;
  std::shared_ptr<upload> upload_;  // where its body goes, if not into the request

  std::shared_ptr<answer> answer_;  // of the request being handled
  std::string method_;              // of that request, for the metrics
  time_point handled_since_;
  std::string queued_;               // to be written next
  std::string sending_;              // being written
  std::size_t sent_ = 0;             // of `sending_`
  std::size_t answers_queued_ = 0;   // that end in `queued_`
  std::size_t answers_sending_ = 0;  // that end in `sending_`
  bool writing_ = false;
  bool last_queued_ = false;  // after what is queued, the connection ends
  bool lingering_ = false;
  bool closed_ = false;
  std::int64_t lingered_bytes_ = 0;

  boost::asio::steady_timer timer_;
  time_point armed_for_ = never;
  time_point input_deadline_ = never;
  time_point write_deadline_ = never;
  time_point answer_deadline_ = never;
  time_point heartbeat_due_ = never;
};

}  // namespace tandem::gateway
