#include "gateway/answer.hpp"

#include "gateway/refusal.hpp"
#include "runtime/result.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <boost/beast/http/status.hpp>

#include <algorithm>
#include <iterator>

namespace tandem::gateway {

namespace {

// Text of a client's can end up in a header (a misspelt field's name): it must not end the line.
void append_header(std::string& out, std::string_view name, std::string_view value) {
  out += name;
  out += ": ";
  const std::size_t from = out.size();
  out += value;
  std::replace_if(
      out.begin() + static_cast<std::ptrdiff_t>(from), out.end(),
      [](char c) { return (c >= 0 && c < ' ' && c != '\t') || c == 0x7f; }, ' ');
  out += "\r\n";
}

std::string_view reason(int status) {
  const auto text = boost::beast::http::obsolete_reason(
      boost::beast::http::int_to_status(static_cast<unsigned>(status)));
  return {text.data(), text.size()};
}

bool without_body(int status) { return status == 204 || status == 304; }

void run(const std::function<void()>& callback) {
  if (!callback) return;
  try {
    callback();
  } catch (const std::exception& why) {
    spdlog::error("a callback of an answer threw: {}", why.what());
  }
}

}  // namespace

answer::answer(answer_terms terms, std::function<void()> wake)
    : terms_(std::move(terms)), wake_(std::move(wake)) {}

std::shared_ptr<responder> answer::handle() {
  return {this, [self = shared_from_this()](responder*) {
            self->fail("the request was dropped without an answer");
          }};
}

void answer::send(http_response response) {
  const std::lock_guard lock(mutex_);
  send_locked(std::move(response));
  changed();
}

void answer::begin(int status, std::string content_type, header_list headers) {
  const std::lock_guard lock(mutex_);
  // After a heartbeat the head is out already; the stream goes on behind the white space.
  if (phase_ == phase::silent) append_head(status, content_type, headers, nullptr);
  if (phase_ == phase::silent || phase_ == phase::beating) phase_ = phase::streaming;
  changed();
}

void answer::write(std::string bytes) {
  const std::lock_guard lock(mutex_);
  if (phase_ != phase::streaming || cut_) return;
  append_chunk(bytes);
  if (pending_.size() > unread_bytes_max) {
    pending_.clear();
    return cut();
  }
  changed();
}

void answer::end() {
  const std::lock_guard lock(mutex_);
  if (phase_ == phase::streaming) finish();
  changed();
}

void answer::send_pieces(http_response head, std::uint64_t bytes, body_source source) {
  const std::lock_guard lock(mutex_);
  ensure(source != nullptr, "pieces come from somewhere");
  if (phase_ != phase::silent) return cut();  // white space before it would be part of it
  const auto length = static_cast<std::size_t>(bytes);
  append_head(head.status, head.content_type, head.headers, &length);
  phase_ = phase::streaming;
  if (terms_.head_only || bytes == 0) {
    finish();
  } else {
    source_ = std::make_shared<body_source>(std::move(source));
    source_bytes_left_ = bytes;
  }
  changed();
}

void answer::fill() {
  std::shared_ptr<body_source> source;
  {
    const std::lock_guard lock(mutex_);
    source = source_;
  }
  if (!source) return;
  const auto piece = (*source)();
  const std::lock_guard lock(mutex_);
  filling_ = false;
  if (phase_ != phase::streaming || cut_) return;
  if (!piece || piece->empty() || piece->size() > source_bytes_left_) {
    spdlog::error("request {}: {} bytes before its end: {}", terms_.request_id, source_bytes_left_,
                  piece ? "its source has another length" : piece.error().detail);
    source_ = nullptr;
    return cut();
  }
  pending_ += *piece;
  source_bytes_left_ -= piece->size();
  if (source_bytes_left_ == 0) {
    source_ = nullptr;
    finish();
  }
  changed();
}

void answer::heartbeat(std::string bytes, std::string content_type) {
  const std::lock_guard lock(mutex_);
  heartbeat_bytes_ = std::move(bytes);
  heartbeat_type_ = std::move(content_type);
  changed();
}

void answer::on_taken(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (phase_ == phase::gone || cut_) return;
    if (!pending_.empty()) {
      taken_callback_ = std::move(callback);
      return;
    }
  }
  run(callback);
}

void answer::on_gone(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (phase_ == phase::ended) return;
    if (phase_ != phase::gone) {
      gone_callback_ = std::move(callback);
      return;
    }
  }
  run(callback);
}

answer::progress answer::take(std::string& out) {
  std::function<void()> taken;
  const progress now = take_locked(out, taken);
  run(taken);
  return now;
}

answer::progress answer::take_locked(std::string& out, std::function<void()>& taken) {
  const std::lock_guard lock(mutex_);
  taken.swap(taken_callback_);
  progress now;
  now.bytes = pending_.size();
  if (out.empty()) {
    out.swap(pending_);
  } else {
    out += pending_;
  }
  pending_.clear();
  now.ended = phase_ == phase::ended;
  now.cut = cut_;
  now.heartbeats = !heartbeat_bytes_.empty();
  now.keep_alive = keep_alive_;
  now.status = status_;
  now.fill = source_ != nullptr && !filling_ && !cut_;
  filling_ = filling_ || now.fill;
  attended_ = false;
  return now;
}

bool answer::is_cut() {
  const std::lock_guard lock(mutex_);
  return cut_;
}

void answer::beat() {
  const std::lock_guard lock(mutex_);
  if (phase_ == phase::silent) {
    append_head(200, heartbeat_type_, {}, nullptr);
    phase_ = phase::beating;
  }
  if (phase_ == phase::beating || phase_ == phase::streaming) append_chunk(heartbeat_bytes_);
}

void answer::fail(std::string_view why) {
  const std::lock_guard lock(mutex_);
  if (phase_ == phase::ended || phase_ == phase::gone) return;
  if (source_) return;  // its handler has done its part
  spdlog::error("request {}: {}", terms_.request_id, why);
  if (phase_ == phase::streaming) return cut();
  send_locked(
      refusal(500, "The server had an error while processing your request.", "internal_error"));
  changed();
}

void answer::expire() {
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    if (phase_ != phase::silent && phase_ != phase::beating) return;
    send_locked(
        refusal(504, "The request was not answered before its deadline.", "deadline_exceeded"));
    callback.swap(gone_callback_);
  }
  run(callback);
}

void answer::client_gone() {
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    wake_ = nullptr;
    source_ = nullptr;
    taken_callback_ = nullptr;
    pending_ = {};
    if (phase_ == phase::ended) return;
    phase_ = phase::gone;
    callback.swap(gone_callback_);
  }
  run(callback);
}

void answer::detach() {
  std::function<void()> callback;
  const std::lock_guard lock(mutex_);
  ensure(phase_ == phase::ended, "an answer is let go when it has ended");
  wake_ = nullptr;
  // Destroyed after the lock: what it holds may call back in here.
  callback.swap(gone_callback_);
}

void answer::append_head(int status, std::string_view content_type, const header_list& headers,
                         const std::size_t* content_length) {
  status_ = status;
  chunked_ = content_length == nullptr && !terms_.http_1_0;
  // Without a length and without chunks, only the connection's end tells where the body ends.
  keep_alive_ = terms_.keep_alive && (content_length != nullptr || chunked_) &&
                !(terms_.draining && *terms_.draining);
  fmt::format_to(std::back_inserter(pending_), "HTTP/1.1 {} {}\r\nserver: tandem\r\n", status,
                 reason(status));
  append_header(pending_, "x-request-id", terms_.request_id);
  for (const auto& [name, value] : terms_.headers) append_header(pending_, name, value);
  if (!content_type.empty() && !without_body(status))
    append_header(pending_, "content-type", content_type);
  for (const auto& [name, value] : headers) append_header(pending_, name, value);
  if (content_length != nullptr && !without_body(status))
    fmt::format_to(std::back_inserter(pending_), "content-length: {}\r\n", *content_length);
  if (chunked_) pending_ += "transfer-encoding: chunked\r\n";
  if (!keep_alive_) {
    pending_ += "connection: close\r\n";
  } else if (terms_.http_1_0) {
    pending_ += "connection: keep-alive\r\n";
  }
  pending_ += "\r\n";
}

void answer::append_chunk(std::string_view bytes) {
  // An empty chunk would be the body's end.
  if (terms_.head_only || bytes.empty()) return;
  if (chunked_) fmt::format_to(std::back_inserter(pending_), "{:x}\r\n", bytes.size());
  pending_ += bytes;
  if (chunked_) pending_ += "\r\n";
}

void answer::finish() {
  if (chunked_ && !terms_.head_only) pending_ += "0\r\n\r\n";
  phase_ = phase::ended;
}

void answer::send_locked(http_response response) {
  if (phase_ == phase::silent) {
    const std::size_t length = response.body.size();
    append_head(response.status, response.content_type, response.headers, &length);
    if (!terms_.head_only && !without_body(response.status)) pending_ += response.body;
    phase_ = phase::ended;
  } else if (phase_ == phase::beating) {
    append_chunk(response.body);
    finish();
  }
}

void answer::cut() {
  cut_ = true;
  // A session that waits for its client to read was woken already and takes nothing more: again.
  attended_ = false;
  changed();
}

void answer::changed() {
  if (attended_ || !wake_) return;
  attended_ = true;
  wake_();
}

}  // namespace tandem::gateway
