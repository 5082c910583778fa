// The way out: answers of handlers and of the server itself, in order, as the client takes them.
#include "gateway/cors.hpp"
#include "gateway/session.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <random>
#include <utility>

namespace tandem::gateway {

namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using std::chrono::milliseconds;

// Buffers that grew beyond this are given back.
constexpr std::size_t kept_capacity_bytes = 64 << 10;
// After the last answer, how long a client may go on sending, so that it gets to read the answer
// rather than a reset.
constexpr milliseconds linger_for{5'000};
// How long after a request's own deadline an answer is given up, at most.
constexpr milliseconds answer_grace_max{5'000};

bool is_sane_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

std::string request_id_for(const http_request& request) {
  const std::string_view theirs = request.header("x-request-id");
  if (is_sane_id(theirs)) return std::string(theirs);
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("req_{:016x}{:08x}", random(), random() & 0xffff'ffff);
}

}  // namespace

void session::open_answer(const http_request& request, bool keep_alive) {
  answer_terms terms;
  terms.http_1_0 = parser_ && parser_->http_1_0();
  terms.keep_alive = keep_alive;
  terms.head_only = request.method == "HEAD";
  terms.request_id = request_id_for(request);
  if (match_.found == nullptr || match_.found->needs != access::admin)
    terms.headers = cors_headers(state_->settings, request);
  terms.draining = std::shared_ptr<const std::atomic<bool>>(state_, &state_->draining);
  answer_ = std::make_shared<answer>(std::move(terms), [home = home_, weak = weak_from_this()] {
    asio::post(home->io, [weak] {
      const auto self = weak.lock();
      if (!self || self->closed_) return;
      self->collect();
      self->advance();
    });
  });
  method_ = request.method;
  handled_since_ = clock::now();
  const milliseconds timeout(state_->settings.request_timeout_ms);
  answer_deadline_ = handled_since_ + timeout + std::min(answer_grace_max, timeout);
  ++state_->requests_total;
  ++state_->requests_active;
}

void session::refuse(http_response response, bool keep_alive) {
  open_answer(parser_ ? parser_->request() : http_request{}, keep_alive);
  parser_.reset();
  refused_.reset();
  hold_body(0);
  drop_upload();
  answer_->send(std::move(response));
  collect();
}

// What the answer has ready is queued, unless the client has yet to read what is queued already.
void session::collect() {
  if (!answer_ || closed_) return;
  if (queued_.size() >= queued_bytes_high && !answer_->is_cut()) return;
  const answer::progress now = answer_->take(queued_);
  if (now.cut) {
    spdlog::info("{}: cut off in the middle of an answer", peer_);
    return close();
  }
  if (now.fill) asio::post(state_->disk, [its_answer = answer_] { its_answer->fill(); });
  if (!now.heartbeats) {
    heartbeat_due_ = never;
  } else if (now.bytes > 0 || heartbeat_due_ == never) {
    heartbeat_due_ = clock::now() + milliseconds(state_->settings.heartbeat_ms);
  }
  if (now.ended) finish_answer(now);
}

void session::finish_answer(const answer::progress& last) {
  const auto ended = std::exchange(answer_, nullptr);
  const std::chrono::duration<double> took = clock::now() - handled_since_;
  state_->metrics.record(match_.found, method_, last.status, took.count());
  answer_deadline_ = heartbeat_due_ = never;
  if (closed_) {
    --state_->requests_active;
    ++state_->clients_gone;
    ended->client_gone();
    return;
  }
  ended->detach();
  ++answers_queued_;  // active until it is written: who drains waits for that
  if (!last.keep_alive || state_->draining) last_queued_ = true;
}

void session::flush() {
  if (writing_ || closed_) return;
  answers_sending_ = std::exchange(answers_queued_, 0);
  if (queued_.empty()) {
    state_->requests_active -= std::exchange(answers_sending_, 0);
    if (last_queued_ && !lingering_) linger();
    return;
  }
  sending_.swap(queued_);
  sent_ = 0;
  write_some();
}

void session::write_some() {
  writing_ = true;
  write_deadline_ = clock::now() + milliseconds(state_->settings.write_timeout_ms);
  stream_->write_some(asio::buffer(sending_) + sent_,
                      [self = shared_from_this()](error_code ec, std::size_t bytes) {
                        self->on_written(ec, bytes);
                      });
}

void session::on_written(error_code ec, std::size_t bytes) {
  if (closed_) return;
  if (ec) return close();
  sent_ += bytes;
  if (sent_ < sending_.size()) return write_some();
  writing_ = false;
  write_deadline_ = never;
  state_->requests_active -= std::exchange(answers_sending_, 0);
  recycle(sending_);
  collect();
  if (closed_) return;
  advance();
  if (!closed_ && input_ended_ && !writing_ && queued_.empty()) close();
}

void session::linger() {
  lingering_ = true;
  input_ = {};
  input_deadline_ = clock::now() + linger_for;
  stream_->finish([self = shared_from_this()](error_code, std::size_t) {
    if (self->input_ended_) self->close();
  });
  read();
}

void session::recycle(std::string& buffer) {
  buffer.clear();
  if (buffer.capacity() > kept_capacity_bytes) buffer = {};
}

}  // namespace tandem::gateway
