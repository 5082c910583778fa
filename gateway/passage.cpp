#include "gateway/passage.hpp"

#include "gateway/http_error.hpp"
#include "gateway/percent_encoding.hpp"

#include <fmt/format.h>
#include <boost/asio/connect.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core/error.hpp>

#include <algorithm>
#include <utility>

namespace tandem::gateway {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;

constexpr std::chrono::milliseconds connect_within{3000};

// Of the connection, or of the door itself: not the head's business. An Origin was judged here.
constexpr auto kept_from_head = std::to_array<std::string_view>(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
     "te", "trailer", "transfer-encoding", "upgrade", "host", "content-length", "expect", "origin",
     "via", "x-request-id", "x-forwarded-for"});
// Likewise on the way back; the door writes its own.
constexpr auto kept_from_client = std::to_array<std::string_view>(
    {"connection", "keep-alive", "proxy-authenticate", "trailer", "transfer-encoding", "upgrade",
     "content-length", "content-type", "date", "server", "x-request-id"});

std::string lower(std::string_view text) {
  std::string made(text);
  for (char& c : made)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  return made;
}

// Is it named in a Connection header's list?
bool is_listed(std::string_view list, std::string_view name) {
  while (!list.empty()) {
    std::string_view word = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), word.size() + 1));
    while (word.starts_with(' ')) word.remove_prefix(1);
    while (word.ends_with(' ')) word.remove_suffix(1);
    if (lower(word) == name) return true;
  }
  return false;
}

template <class Names>
bool contains(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

std::string request_head(const http_request& request, const head_place& to, bool chunked) {
  // The door answers HEAD from what GET brings.
  std::string head = request.method == "HEAD" ? "GET" : request.method;
  head += ' ' + percent_encode_path(request.path);
  if (!request.query.empty()) head += '?' + request.query;
  const bool v6 = to.host.find(':') != std::string::npos && !to.host.starts_with('[');
  head += fmt::format(" HTTP/1.1\r\nhost: {}{}{}:{}\r\nconnection: close\r\nvia: {}\r\n",
                      v6 ? "[" : "", to.host, v6 ? "]" : "", to.port, via_door);
  const auto listed = request.header("connection");
  for (const auto& [name, value] : request.headers)
    if (!contains(kept_from_head, name) && !is_listed(listed, name))
      head += name + ": " + value + "\r\n";
  if (!request.request_id.empty()) head += "x-request-id: " + request.request_id + "\r\n";
  if (!request.peer.empty()) head += "x-forwarded-for: " + request.peer + "\r\n";
  if (chunked)
    head += "transfer-encoding: chunked\r\n";
  else if (!request.body.empty() || request.method == "POST" || request.method == "PUT")
    head += fmt::format("content-length: {}\r\n", request.body.size());
  return head + "\r\n";
}

passage::passage(asio::io_context& io, head_line line, std::chrono::milliseconds silence)
    : io_(io), line_(std::move(line)), silence_(silence), resolver_(io), socket_(io), timer_(io) {
  parser_.emplace();
  parser_->body_limit(boost::none);
  parser_->header_limit(64 << 10);
}

void passage::start(std::string out) {
  out_ = std::move(out);
  connect();
}

void passage::answer(std::shared_ptr<responder> to) {
  if (failure_) return to->send(error_response(*failure_));
  to_ = std::move(to);
  to_->on_gone([&io = io_, weak = weak_from_this()] {
    asio::post(io, [weak] {
      if (const auto self = weak.lock()) self->close();
    });
  });
  if (!head_read_) return;
  on_head();  // it answered before all of the body had come
  parse();
}

// --- towards the head ---------------------------------------------------------------------------

void passage::connect() {
  arm(connect_within);
  auto host = line_.place.host;
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  resolver_.async_resolve(
      host, std::to_string(line_.place.port),
      [self = shared_from_this()](error_code ec, const tcp::resolver::results_type& found) {
        if (self->is_closed_) return;
        if (ec) return self->fail({errc::unavailable, "the head's host is not known", ""});
        asio::async_connect(self->socket_, found, [self](error_code failed, const tcp::endpoint&) {
          if (self->is_closed_) return;
          if (!failed) return self->open();
          self->fail(
              {errc::unavailable,
               fmt::format("the head does not answer at {}:{} ({}): it may be starting again, "
                           "or listen on its own loopback only (server.host)",
                           self->line_.place.host, self->line_.place.port, failed.message()),
               ""});
        });
      });
}

void passage::open() {
  error_code ignored;
  socket_.set_option(tcp::no_delay(true), ignored);
  stream_ = line_.tls ? tls_client_stream(std::move(socket_), *line_.tls)
                      : plain_stream(std::move(socket_));
  stream_->open([self = shared_from_this()](error_code ec, std::size_t) {
    if (self->is_closed_) return;
    if (ec)
      return self->fail(
          {errc::unavailable,
           fmt::format("what answers at {}:{} does not show the head's certificate ({})",
                       self->line_.place.host, self->line_.place.port, ec.message()),
           ""});
    self->is_open_ = true;
    self->arm(self->silence_);
    self->flush();
    self->read();
  });
}

void passage::flush() {
  if (!is_open_ || is_closed_ || sent_ < sending_.size()) return;
  if (out_.empty()) return;
  sending_ = std::exchange(out_, {});
  sent_ = 0;
  on_written({}, 0);
}

void passage::on_written(error_code ec, std::size_t bytes) {
  if (is_closed_) return;
  if (ec) {
    // It may have answered before it had read all: that is read, the rest is dropped.
    sending_.clear();
    sent_ = 0;
    const std::lock_guard lock(mutex_);
    is_over_ = true;
    moved_.notify_all();
    return;
  }
  sent_ += bytes;
  if (bytes > 0) {
    arm(silence_);
    const std::lock_guard lock(mutex_);
    waiting_bytes_ -= std::min(waiting_bytes_, bytes);
    moved_.notify_all();
  }
  if (sent_ == sending_.size()) return flush();
  stream_->write_some(asio::buffer(sending_.data() + sent_, sending_.size() - sent_),
                      [self = shared_from_this()](error_code failed, std::size_t written) {
                        self->on_written(failed, written);
                      });
}

result<void> passage::send_piece(std::string_view bytes) {
  if (bytes.empty()) return {};  // an empty chunk would be the last
  {
    std::unique_lock lock(mutex_);
    moved_.wait_for(lock, silence_, [&] {
      return waiting_bytes_ < waiting_bytes_max || is_over_ || refusal_.has_value();
    });
    if (refusal_) return *refusal_;
    if (is_over_) return {};
    if (waiting_bytes_ >= waiting_bytes_max)
      return error{errc::timed_out,
                   fmt::format("the head took nothing for {} ms", silence_.count()), ""};
    waiting_bytes_ += bytes.size();
  }
  send_later(fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes));
  return {};
}

void passage::send_end() { send_later("0\r\n\r\n"); }

void passage::send_later(std::string bytes) {
  asio::post(io_, [self = shared_from_this(), bytes = std::move(bytes)] {
    self->out_ += bytes;
    self->flush();
  });
}

// --- towards the client -------------------------------------------------------------------------

void passage::read() {
  if (is_closed_ || reading_) return;
  reading_ = true;
  stream_->read_some(asio::buffer(chunk_),
                     [self = shared_from_this()](error_code ec, std::size_t bytes) {
                       self->reading_ = false;
                       self->on_read(ec, bytes);
                     });
}

void passage::on_read(error_code ec, std::size_t bytes) {
  if (is_closed_) return;
  if (ec) {
    error_code incomplete;
    if (head_read_ && !parser_->is_done()) parser_->put_eof(incomplete);
    return head_read_ && parser_->is_done() && !incomplete ? on_end() : fail(cut_short());
  }
  arm(silence_);
  in_.append(chunk_.data(), bytes);
  parse();
}

// As far as what was read goes; a piece that was passed on is waited for.
void passage::parse() {
  while (!is_closed_ && !parser_->is_done()) {
    if (head_read_ && !to_) return;  // until there is somebody to answer
    if (in_.empty()) return read();
    auto& body = parser_->get().body();
    body.data = piece_.data();
    body.size = piece_.size();
    body.more = true;
    error_code ec;
    const std::size_t taken = parser_->put(asio::buffer(in_), ec);
    in_.erase(0, taken);
    if (ec == http::error::need_more) return read();
    if (ec && ec != http::error::need_buffer)
      return fail({errc::unavailable, "the head's answer cannot be read: " + ec.message(), ""});
    if (!head_read_ && parser_->is_header_done()) {
      head_read_ = true;
      if (to_) on_head();
      continue;
    }
    const std::size_t bytes = piece_.size() - body.size;
    if (bytes == 0) continue;
    on_piece(bytes);
    if (is_stream_ && !parser_->is_done()) return;
  }
  if (!is_closed_ && head_read_ && to_) on_end();
}

void passage::on_head() {
  const auto& message = parser_->get();
  response_.status = static_cast<int>(message.result_int());
  response_.content_type = std::string(message[http::field::content_type]);
  const auto listed = std::string(message[http::field::connection]);
  for (const auto& field : message) {
    auto name = lower({field.name_string().data(), field.name_string().size()});
    const bool is_ours = contains(kept_from_client, name) || is_listed(listed, name) ||
                         name.starts_with("access-control-");
    if (!is_ours) response_.headers.emplace_back(std::move(name), std::string(field.value()));
  }
  const auto length = parser_->content_length();
  const bool no_body = response_.status == 204 || response_.status == 304;
  is_stream_ = !no_body && (!length || *length > whole_bytes_max);
  if (is_stream_) to_->begin(response_.status, response_.content_type, response_.headers);
}

void passage::on_piece(std::size_t bytes) {
  if (!is_stream_) {
    response_.body.append(piece_.data(), bytes);
    return;
  }
  to_->write(std::string(piece_.data(), bytes));
  if (parser_->is_done()) return;
  // Nobody else holds on to it meanwhile.
  to_->on_taken([self = shared_from_this()] { asio::post(self->io_, [self] { self->parse(); }); });
}

void passage::on_end() {
  const auto to = std::exchange(to_, nullptr);
  if (to && is_stream_)
    to->end();
  else if (to)
    to->send(std::move(response_));
  close();
}

void passage::cut_stream() {
  if (is_stream_ && to_ && !parser_->content_length()) on_end();
}

void passage::fail(error why) {
  if (is_closed_) return;
  // Dropped after its beginning, a responder cuts its connection: the client sees that it is short.
  const auto to = std::exchange(to_, nullptr);
  if (to && !is_stream_)
    to->send(error_response(why));
  else if (!to)
    failure_ = why;
  {
    const std::lock_guard lock(mutex_);
    refusal_ = std::move(why);
    moved_.notify_all();
  }
  close();
}

void passage::close() {
  if (std::exchange(is_closed_, true)) return;
  to_ = nullptr;
  timer_.cancel();
  resolver_.cancel();
  error_code ignored;
  if (stream_)
    stream_->close();
  else
    socket_.close(ignored);
  const std::lock_guard lock(mutex_);
  is_over_ = true;
  moved_.notify_all();
}

void passage::arm(std::chrono::milliseconds length) {
  timer_.expires_after(length);
  timer_.async_wait([weak = weak_from_this(), length](error_code cancelled) {
    const auto self = weak.lock();
    if (cancelled || !self || self->timer_.expiry() > std::chrono::steady_clock::now()) return;
    self->fail({self->is_open_ ? errc::timed_out : errc::unavailable,
                fmt::format("the head at {}:{} was silent for {} ms", self->line_.place.host,
                            self->line_.place.port, length.count()),
                ""});
  });
}

error passage::cut_short() const {
  return {errc::unavailable,
          "the head was lost before it had answered: whether it did what was asked is not known",
          ""};
}

}  // namespace tandem::gateway
