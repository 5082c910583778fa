// A connection's beginning, end and deadlines; session_input.cpp and session_output.cpp hold the
// rest.
#include "gateway/session.hpp"

#include "gateway/refusal.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>

namespace tandem::gateway {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;

bool is_loopback(const asio::ip::address& address) {
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).is_loopback();
  return address.is_loopback();
}

}  // namespace

session::session(std::shared_ptr<lane> home, std::shared_ptr<server_state> state,
                 std::unique_ptr<byte_stream> stream, const tcp::endpoint& peer)
    : home_(std::move(home)),
      state_(std::move(state)),
      stream_(std::move(stream)),
      peer_(endpoint_text(peer)),
      from_loopback_(is_loopback(peer.address())),
      timer_(home_->io) {
  ++state_->connections_open;
}

session::~session() {
  // A session is destroyed unclosed only when its lane never ran.
  if (!closed_) --state_->connections_open;
}

void session::start() {
  if (state_->draining && answers_queued_ == 0) return close();
  home_->sessions.emplace(this, weak_from_this());
  input_deadline_ = clock::now() + milliseconds(state_->settings.header_timeout_ms);
  arm();
  stream_->open([self = shared_from_this()](error_code ec, std::size_t) {
    if (self->closed_) return;
    if (ec) return self->close();
    self->flush();
    self->read();
  });
}

void session::start_refused() {
  refuse(refusal(503, "Too many connections are open: try again later.", "too_many_connections"),
         false);
  start();
}

void session::drain() {
  if (idle()) return close();
  // Its last answer is on the wire already; any other session sees the drain when it answers.
  if (!answer_ && !parser_ && input_.empty()) last_queued_ = true;
}

bool session::idle() const {
  return !answer_ && !parser_ && input_.empty() && queued_.empty() && !writing_;
}

void session::close() {
  if (closed_) return;
  closed_ = true;
  const auto self = shared_from_this();
  stream_->close();
  timer_.cancel();
  hold_body(0);
  drop_upload();
  home_->sessions.erase(this);
  --state_->connections_open;
  const std::size_t unwritten = answers_queued_ + answers_sending_;
  state_->requests_active -= unwritten;
  if (answer_) {
    finish_answer({.status = 499});
  } else if (unwritten > 0) {
    ++state_->clients_gone;
  }
}

// The timer runs to the earliest deadline it was armed for; deadlines that move later are noticed
// when it fires. So a request in its course costs no timer operation at all.
void session::arm() {
  if (closed_) return;
  const time_point next =
      std::min({input_deadline_, write_deadline_, answer_deadline_, heartbeat_due_});
  if (next >= armed_for_) return;
  armed_for_ = next;
  timer_.expires_at(next);
  timer_.async_wait([self = shared_from_this()](error_code ec) {
    if (!ec) self->on_timer();
  });
}

void session::on_timer() {
  if (closed_) return;
  armed_for_ = never;
  const time_point now = clock::now();
  if (write_deadline_ <= now) {
    spdlog::info("{}: cut off, took nothing for {} ms", peer_, state_->settings.write_timeout_ms);
    return close();
  }
  if (input_deadline_ <= now) return on_late_input();
  if (answer_ && answer_deadline_ <= now) {
    answer_deadline_ = never;
    answer_->expire();
    collect();
    return advance();
  }
  if (answer_ && heartbeat_due_ <= now) {
    heartbeat_due_ = now + milliseconds(state_->settings.heartbeat_ms);
    // Bytes that wait for the client are sign of life enough.
    if (!writing_) answer_->beat();
    collect();
    if (closed_) return;
    flush();
  }
  arm();
}

void session::on_late_input() {
  input_deadline_ = never;
  if (!parser_) return close();
  refuse(refusal(408, "The request took too long to arrive.", "request_timeout"), false);
  flush();
  arm();
}

}  // namespace tandem::gateway
