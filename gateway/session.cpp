#include "gateway/session.hpp"

#include "gateway/cors.hpp"
#include "gateway/refusal.hpp"
#include "runtime/result.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <random>

namespace tandem::gateway {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;

// Input kept while a request is handled; then reading pauses until it is answered.
constexpr std::size_t read_ahead_bytes_max = 64 << 10;
// Output at which no further pipelined request is begun, nor more of an answer taken.
constexpr std::size_t queued_bytes_high = 64 << 10;
// A body so small is read to its end even when its request is refused, to keep the connection.
constexpr std::uint64_t refused_body_bytes_max = 64 << 10;
// Buffers that grew beyond this are given back.
constexpr std::size_t kept_capacity_bytes = 64 << 10;
// After the last answer: how long and how much a client may go on sending, so that it gets to read
// the answer rather than a reset.
constexpr milliseconds linger_for{5'000};
constexpr std::int64_t lingered_bytes_min = 1 << 20;
// How long after a request's own deadline an answer is given up.
constexpr milliseconds answer_grace{5'000};
// Bodies still being read, of all connections together, in units of the largest body.
constexpr std::int64_t unfinished_bodies_max = 16;

bool is_loopback(const asio::ip::address& address) {
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).is_loopback();
  return address.is_loopback();
}

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

std::string joined(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : ", ") + word;
  return line;
}

void release_if_large(std::string& buffer) {
  buffer.clear();
  if (buffer.capacity() > kept_capacity_bytes) buffer = {};
}

void handle(const route& r, std::shared_ptr<const http_request> request,
            const std::shared_ptr<answer>& its_answer) {
  // Held until the catch below has spoken: an answer dropped by the throw would hide its reason.
  const std::shared_ptr<responder> to_client = its_answer->handle();
  try {
    r.handler(std::move(request), to_client);
  } catch (const std::exception& why) {
    its_answer->fail(fmt::format("{} {} threw: {}", r.method, r.path, why.what()));
  } catch (...) {
    its_answer->fail(fmt::format("{} {} threw", r.method, r.path));
  }
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
  home_->sessions.erase(this);
  --state_->connections_open;
  if (answer_) {
    finish_answer({.status = 499});
  } else if (!lingering_ && (writing_ || !queued_.empty())) {
    ++state_->clients_gone;
  }
}

// ---- in ----

void session::read() {
  if (reading_ || closed_ || input_ended_ || input_.size() >= read_ahead_bytes_max) return;
  reading_ = true;
  stream_->read_some(
      asio::buffer(chunk_),
      [self = shared_from_this()](error_code ec, std::size_t bytes) { self->on_read(ec, bytes); });
}

void session::on_read(error_code ec, std::size_t bytes) {
  reading_ = false;
  if (closed_) return;
  if (ec) return on_input_end(ec);
  if (lingering_) {
    lingered_bytes_ += static_cast<std::int64_t>(bytes);
    if (lingered_bytes_ > std::max(lingered_bytes_min, 2 * state_->settings.max_body_bytes))
      return close();
    return read();
  }
  input_.append(chunk_.data(), bytes);
  advance();
  read();
}

void session::on_input_end(error_code ec) {
  input_ended_ = true;
  // Who closes its side has no interest in an answer that is still being made. An answer that is
  // ready is still delivered: the client may have closed only its sending half.
  if (answer_ || lingering_ || ec != asio::error::eof) return close();
  advance();
  if (!closed_ && !writing_ && queued_.empty()) close();
}

// Parses and handles, in order, whatever has come.
void session::advance() {
  while (!closed_ && !answer_ && !last_queued_ && queued_.size() < queued_bytes_high && parse()) {
  }
  if (closed_) return;
  if (input_.empty()) release_if_large(input_);
  flush();
  if (!parser_ && !lingering_)
    input_deadline_ =
        answer_ || writing_ ? never : clock::now() + milliseconds(state_->settings.idle_timeout_ms);
  arm();
  read();
}

// One step of the request at the front of the input; false when it needs more bytes.
bool session::parse() {
  if (!parser_) {
    // Empty lines before a request are skipped (RFC 9112, section 2.2).
    input_.erase(0, input_.find_first_not_of("\r\n"));
    if (input_.empty()) return false;
    match_ = {};
    const server_settings& limits = state_->settings;
    parser_.emplace(parser_limits{limits.max_header_bytes, limits.max_body_bytes});
    input_deadline_ = clock::now() + milliseconds(limits.header_timeout_ms);
  }
  std::string_view rest = input_;
  const request_parser::outcome now = parser_->feed(rest);
  input_.erase(0, input_.size() - rest.size());
  switch (now) {
    case request_parser::outcome::need_more:
      if (!hold_body(parser_->body_bytes_held()))
        refuse(
            refusal(503, "Too many large requests are being read: try again later.", "server_busy"),
            false);
      return false;
    case request_parser::outcome::head_done:
      on_head();
      return true;
    case request_parser::outcome::complete:
      hold_body(0);
      on_request();
      return true;
    case request_parser::outcome::broken:
      refuse(parser_->problem(), false);
      return false;
  }
  return false;
}

// Counts the unfinished body among those of all connections; false when they are too many.
bool session::hold_body(std::size_t bytes) {
  const auto change =
      static_cast<std::int64_t>(bytes) - static_cast<std::int64_t>(body_bytes_held_);
  body_bytes_held_ = bytes;
  const std::int64_t all = state_->unfinished_body_bytes += change;
  return change <= 0 || bytes < server_state::heavy_body_bytes ||
         all <= unfinished_bodies_max * state_->settings.max_body_bytes;
}

// Everything that can be decided before the body is.
void session::on_head() {
  const http_request& request = parser_->request();
  refused_ = find_route(request);
  const auto length = parser_->content_length();
  const bool has_body = length != 0U;
  const bool expects = parser_->expects_continue();
  if (!refused_ && !expects && !request.header("expect").empty())
    refused_ = refusal(417, "The only expectation understood is 100-continue.", "expectation");
  if (refused_ && has_body && (expects || !length || *length > refused_body_bytes_max))
    return refuse(std::move(*refused_), false);
  if (refused_) parser_->discard_body();
  if (!refused_ && expects && has_body && input_.empty())
    queued_ += "HTTP/1.1 100 Continue\r\n\r\n";
  input_deadline_ = clock::now() + milliseconds(state_->settings.body_timeout_ms);
}

// Sets match_, or says why the request is refused. OPTIONS leaves match_ without a route.
std::optional<http_response> session::find_route(const http_request& request) {
  const bool head = request.method == "HEAD";
  match_ = {};
  if (request.path == "*") return std::nullopt;
  match_ = state_->routes->find(head ? "GET" : request.method, request.path);
  if (!request.header("content-encoding").empty() &&
      request.header("content-encoding") != "identity")
    return refusal(415, "Bodies with a Content-Encoding are not read: send them as they are.",
                   "content_encoding");
  if (match_.found != nullptr)
    return state_->keys.check(match_.found->needs, request, from_loopback_);
  if (match_.allowed.empty())
    return refusal(404,
                   fmt::format("Unknown request URL: {} {}. Please check the URL for typos.",
                               quotable(request.method), quotable(request.path)),
                   "unknown_url");
  if (request.method == "OPTIONS") return std::nullopt;
  http_response response = refusal(
      405,
      fmt::format("Not allowed to {} on {}.", quotable(request.method), quotable(request.path)),
      "method_not_supported");
  response.headers.emplace_back("allow", joined(match_.allowed));
  return response;
}

void session::on_request() {
  if (refused_) return refuse(std::move(*refused_), parser_->keep_alive());
  const bool keep_alive = parser_->keep_alive();
  http_request request = parser_->take_request();
  open_answer(request, keep_alive);
  parser_.reset();
  request.peer = peer_;
  if (match_.found == nullptr) {
    answer_options(request);
  } else {
    run_handler(std::move(request));
  }
  collect();
}

void session::answer_options(const http_request& request) {
  const std::string allowed =
      match_.allowed.empty() ? "GET, HEAD, POST, DELETE, OPTIONS" : joined(match_.allowed);
  http_response response;
  response.status = 204;
  response.headers =
      is_preflight(request) ? preflight_headers(request, allowed) : header_list{{"allow", allowed}};
  answer_->send(std::move(response));
}

void session::run_handler(http_request request) {
  request.request_id = answer_->request_id();
  request.path_parameters = std::move(match_.path_parameters);
  const route* const wanted = match_.found;
  const bool heavy = request.body.size() > server_state::heavy_body_bytes;
  auto shared = std::make_shared<const http_request>(std::move(request));
  if (!heavy) return handle(*wanted, std::move(shared), answer_);

  const auto queued = state_->heavy_queued;
  if (queued->fetch_add(1) >= server_state::heavy_queue_max) {
    --*queued;
    http_response response =
        refusal(429, "Too many large requests are waiting: try again later.", "server_busy");
    response.headers.emplace_back("retry-after", "1");
    return answer_->send(std::move(response));
  }
  // Holds the router, not the state: the pool is the state's.
  asio::post(state_->heavy, [routes = state_->routes, wanted, queued, shared = std::move(shared),
                             its_answer = answer_]() mutable {
    --*queued;
    handle(*wanted, std::move(shared), its_answer);
  });
}

// ---- out ----

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
  answer_deadline_ =
      handled_since_ + milliseconds(state_->settings.request_timeout_ms) + answer_grace;
  ++state_->requests_total;
  ++state_->requests_active;
}

void session::refuse(http_response response, bool keep_alive) {
  open_answer(parser_ ? parser_->request() : http_request{}, keep_alive);
  parser_.reset();
  refused_.reset();
  hold_body(0);
  answer_->send(std::move(response));
  collect();
}

// What the answer has ready is queued, unless the client has yet to read what is queued already.
void session::collect() {
  if (!answer_ || closed_ || queued_.size() >= queued_bytes_high) return;
  const answer::progress now = answer_->take(queued_);
  if (now.cut) {
    spdlog::info("{}: cut off in the middle of an answer", peer_);
    return close();
  }
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
  --state_->requests_active;
  answer_deadline_ = heartbeat_due_ = never;
  if (closed_) {
    ++state_->clients_gone;
    ended->client_gone();
    return;
  }
  ended->detach();
  if (!last.keep_alive || state_->draining) last_queued_ = true;
}

void session::flush() {
  if (writing_ || closed_) return;
  if (queued_.empty()) {
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
  release_if_large(sending_);
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

// ---- time ----

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
