// The way in: bytes, requests, and what is decided about them before and when a handler runs.
#include "gateway/cors.hpp"
#include "gateway/http_error.hpp"
#include "gateway/refusal.hpp"
#include "gateway/session.hpp"

#include <fmt/format.h>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <utility>

namespace tandem::gateway {

namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using std::chrono::milliseconds;

// Input kept while a request is handled; then reading pauses until it is answered, and only a
// heartbeat finds out that the client has left.
constexpr std::size_t read_ahead_bytes_max = 64 << 10;
// A body so small is read to its end even when its request is refused, to keep the connection.
constexpr std::uint64_t refused_body_bytes_max = 64 << 10;
// After the last answer, how much a client may go on sending.
constexpr std::int64_t lingered_bytes_min = 1 << 20;
// Bodies still being read, of all connections together, in units of the largest body.
constexpr std::int64_t unfinished_bodies_max = 16;

std::string joined(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : ", ") + word;
  return line;
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
    // An upload that was refused may be long on its way; linger_for bounds it too.
    const server_settings& limits = state_->settings;
    if (lingered_bytes_ >
        std::max({lingered_bytes_min, 2 * limits.max_body_bytes, 2 * limits.max_file_bytes}))
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
  while (!closed_ && !answer_ && !last_queued_ && queued_.size() < queued_bytes_high &&
         !(upload_ && upload_->waiting_bytes() >= upload::waiting_bytes_max) && parse()) {
  }
  if (closed_) return;
  if (input_.empty()) recycle(input_);
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
      if (upload_) {
        pass_body(upload::piece_bytes);
        return false;
      }
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
  const route* const wanted = match_.found;
  const bool own_limit = !refused_ && wanted != nullptr && wanted->body_bytes_max > 0;
  if (!parser_->limit_body(own_limit ? wanted->body_bytes_max : state_->settings.max_body_bytes) &&
      !refused_)
    return refuse(parser_->problem(), false);
  const auto length = parser_->content_length();
  const bool has_body = length != 0U;
  const bool expects = parser_->expects_continue();
  if (!refused_ && !expects && !request.header("expect").empty())
    refused_ = refusal(417, "The only expectation understood is 100-continue.", "expectation");
  if (!refused_ && wanted != nullptr && wanted->open_sink) refused_ = open_upload(request);
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
  if (upload_) pass_body(1);
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
  if (upload_) return run_off_lane(std::move(request));
  const bool heavy = request.body.size() > server_state::heavy_body_bytes;
  auto shared = std::make_shared<const http_request>(std::move(request));
  if (wanted->waits) {
    asio::post(state_->disk, [routes = state_->routes, wanted, shared = std::move(shared),
                              its_answer = answer_] { handle(*wanted, shared, its_answer); });
    return;
  }
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

// Behind the last piece of its body.
void session::run_off_lane(http_request request) {
  const auto its_upload = std::exchange(upload_, nullptr);
  its_upload->finish([routes = state_->routes, wanted = match_.found, its_answer = answer_,
                      request = std::move(request)](result<std::shared_ptr<body_sink>> body) {
    if (!body) return its_answer->send(error_response(body.error()));
    auto whole = request;
    whole.sink = std::move(*body);
    handle(*wanted, std::make_shared<const http_request>(std::move(whole)), its_answer);
  });
}

std::optional<http_response> session::open_upload(const http_request& request) {
  if (*state_->uploads >= server_state::uploads_max) {
    http_response response =
        refusal(429, "Too many files are being uploaded: try again later.", "server_busy");
    response.headers.emplace_back("retry-after", "1");
    return response;
  }
  auto sink = match_.found->open_sink(request);
  if (!sink) return error_response(sink.error());
  upload_ = std::make_shared<upload>(state_->disk, std::move(*sink), state_->uploads,
                                     [home = home_, weak = weak_from_this()] {
                                       asio::post(home->io, [weak] {
                                         if (const auto self = weak.lock())
                                           self->on_upload_progress();
                                       });
                                     });
  return std::nullopt;
}

// Hands over what has come of the body, when it is so much.
void session::pass_body(std::size_t least) {
  if (parser_->body_bytes_held() < least) return;
  upload_->write(parser_->take_body());
  // A body may take as long as it keeps coming; when its sink is behind, the client is not.
  input_deadline_ = upload_->waiting_bytes() >= upload::waiting_bytes_max
                        ? never
                        : clock::now() + milliseconds(state_->settings.body_timeout_ms);
}

void session::on_upload_progress() {
  if (closed_ || !upload_) return;
  if (const auto why = upload_->failure()) {
    refuse(error_response(*why), false);
  } else if (input_deadline_ == never) {
    input_deadline_ = clock::now() + milliseconds(state_->settings.body_timeout_ms);
  }
  advance();
}

void session::drop_upload() {
  if (upload_) std::exchange(upload_, nullptr)->abandon();
}

}  // namespace tandem::gateway
