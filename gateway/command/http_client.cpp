// Asynchronous operations, each waited for with a bound: Beast's blocking calls have none.
#include "gateway/command/http_client.hpp"

#include "gateway/command/upload_body.hpp"

#include <fmt/format.h>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include <algorithm>
#include <array>
#include <optional>

namespace tandem::gateway::command {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using steady = std::chrono::steady_clock;

constexpr std::size_t body_bytes_max = 64U << 20;  // of an answer that is kept whole
constexpr std::chrono::milliseconds look_every{50};

struct io_failure {
  error_code code;
  bool timed_out = false;
  bool stopped = false;
};

}  // namespace

struct http_client::state {
  http_address address;
  std::string api_key;
  asio::io_context context;
  asio::ssl::context tls{asio::ssl::context::tls_client};
  tcp::resolver resolver{context};
  std::optional<tcp::socket> plain;
  std::optional<asio::ssl::stream<tcp::socket>> secure;
  boost::beast::flat_buffer read_ahead;

  tcp::socket* socket() {
    if (secure) return &secure->next_layer();
    return plain ? &*plain : nullptr;
  }

  void close() {
    if (tcp::socket* open = socket()) {
      error_code ignored;
      open->close(ignored);
    }
    context.restart();
    context.run();  // what was pending ends now, so that nothing refers to the streams any more
    secure.reset();
    plain.reset();
    read_ahead.clear();
  }

  // Starts one operation with a handler and runs it to its end, its bound, or the caller's stop.
  template <class Start>
  std::optional<io_failure> wait(const http_call& call, Start start) {
    std::optional<error_code> ended;
    start([&ended](error_code code, auto&&...) { ended = code; });
    context.restart();
    const auto limit = steady::now() + call.silence_max;
    while (!ended) {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(limit - steady::now());
      const bool stop = call.stopped && call.stopped();
      if (stop || left.count() <= 0) {
        resolver.cancel();
        close();
        return io_failure{asio::error::operation_aborted, !stop, stop};
      }
      context.run_one_for(std::min(left, look_every));
    }
    if (*ended) return io_failure{*ended};
    return std::nullopt;
  }

  template <class Stream>
  std::optional<io_failure> exchange(Stream& stream, const http_call& call, const upload_form& form,
                                     http_answer& answer, bool& answered);
  template <class Stream>
  std::optional<io_failure> send(Stream& stream, const http_call& call, const upload_form& form);
  template <class Body>
  void set_fields(http::request<Body>& request) const;
  std::optional<io_failure> open(const http_call& call);
  result<http_answer> failed(const http_call& call, const io_failure& why);
};

std::optional<io_failure> http_client::state::open(const http_call& call) {
  tcp::resolver::results_type places;
  auto failure = wait(call, [&](auto handler) {
    resolver.async_resolve(address.host, address.port,
                           [&places, handler](auto code, auto found) mutable {
                             places = std::move(found);
                             handler(code);
                           });
  });
  if (failure) return failure;
  if (!address.tls) {
    plain.emplace(context);
  } else {
    secure.emplace(context, tls);
    secure->set_verify_mode(asio::ssl::verify_peer);
    secure->set_verify_callback(asio::ssl::host_name_verification(address.host));
    // SSL_set_tlsext_host_name, without its C cast.
    if (SSL_ctrl(secure->native_handle(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
                 address.host.data()) != 1) {
      return io_failure{asio::error::invalid_argument};
    }
  }
  failure = wait(call, [&](auto handler) { asio::async_connect(*socket(), places, handler); });
  if (failure) return failure;
  error_code ignored;
  socket()->set_option(tcp::no_delay(true), ignored);
  if (!address.tls) return std::nullopt;
  return wait(call, [&](auto handler) {
    secure->async_handshake(asio::ssl::stream_base::client, handler);
  });
}

template <class Body>
void http_client::state::set_fields(http::request<Body>& request) const {
  request.set(http::field::host, address.host + ":" + address.port);
  request.set(http::field::user_agent, "tandem");
  if (!api_key.empty()) request.set(http::field::authorization, "Bearer " + api_key);
}

template <class Stream>
std::optional<io_failure> http_client::state::send(Stream& stream, const http_call& call,
                                                   const upload_form& form) {
  const auto verb = http::string_to_verb(call.method);
  const std::string target = address.prefix + call.target;
  if (!call.upload) {
    http::request<http::string_body> request(verb, target, 11);
    set_fields(request);
    if (!call.body.empty()) {
      request.set(http::field::content_type, "application/json");
      request.body() = call.body;
    }
    request.prepare_payload();
    return wait(call, [&](auto handler) { http::async_write(stream, request, handler); });
  }
  http::request<upload_body> request(verb, target, 11);
  set_fields(request);
  request.set(http::field::content_type, form.content_type);
  request.body() = form.body;
  request.prepare_payload();
  const std::uint64_t bytes_total = upload_body::size(form.body);
  std::uint64_t bytes_sent = 0;
  http::request_serializer<upload_body> serializer(request);
  serializer.split(true);  // the head alone first: what follows is counted as the body
  // Piece by piece, so that the bound on silence is one on each piece.
  while (!serializer.is_done()) {
    const bool head = !serializer.is_header_done();
    std::size_t written = 0;
    const auto failure = wait(call, [&](auto handler) {
      http::async_write_some(stream, serializer,
                             [&written, handler](error_code code, std::size_t n) mutable {
                               written = n;
                               handler(code);
                             });
    });
    if (failure) return failure;
    if (head) continue;
    bytes_sent += written;
    if (call.upload->on_progress) call.upload->on_progress(bytes_sent, bytes_total);
  }
  return std::nullopt;
}

template <class Stream>
std::optional<io_failure> http_client::state::exchange(Stream& stream, const http_call& call,
                                                       const upload_form& form, http_answer& answer,
                                                       bool& answered) {
  auto failure = send(stream, call, form);
  // A server that refuses a large body answers before it has all of it, and hangs up.
  const bool hung_up =
      failure && call.upload &&
      (failure->code == asio::error::broken_pipe || failure->code == asio::error::connection_reset);
  if (failure && !hung_up) return failure;
  const auto cut = failure;

  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  failure = wait(
      call, [&](auto handler) { http::async_read_header(stream, read_ahead, parser, handler); });
  answered = parser.got_some();
  if (failure) return cut ? cut : failure;
  answer.status = parser.get().result_int();
  for (const auto& field : parser.get()) {
    std::string name(field.name_string());
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
    answer.headers.emplace_back(std::move(name), std::string(field.value()));
  }
  const bool in_pieces = call.on_bytes && answer.status / 100 == 2;
  std::array<char, 16384> piece;
  while (!parser.is_done()) {
    parser.get().body().data = piece.data();
    parser.get().body().size = piece.size();
    failure = wait(
        call, [&](auto handler) { http::async_read_some(stream, read_ahead, parser, handler); });
    if (failure && failure->code != http::error::need_buffer) return failure;
    const std::string_view got(piece.data(), piece.size() - parser.get().body().size);
    if (in_pieces) {
      if (!got.empty() && !call.on_bytes(got)) {
        close();
        return std::nullopt;
      }
    } else if (answer.body.size() + got.size() > body_bytes_max) {
      return io_failure{http::error::body_limit};
    } else {
      answer.body += got;
    }
  }
  if (!parser.keep_alive() || cut) close();
  return std::nullopt;
}

result<http_answer> http_client::state::failed(const http_call& call, const io_failure& why) {
  close();
  if (why.stopped) return error{errc::cancelled, "stopped", {}};
  if (why.timed_out) {
    return error{errc::timed_out,
                 fmt::format("{} was silent for {} ms: is it overloaded, or no tandem?",
                             address.text, call.silence_max.count()),
                 {}};
  }
  const std::string said = why.code.message();
  if (why.code == asio::error::connection_refused) {
    return error{errc::unavailable,
                 fmt::format("nobody listens at {}: start `tandem up`, or give --address or "
                             "$TANDEM_ADDRESS",
                             address.text),
                 {}};
  }
  if (why.code == asio::error::host_not_found ||
      why.code == asio::error::host_not_found_try_again) {
    return error{errc::unavailable, fmt::format("no host {}: check --address", address.host), {}};
  }
  if (call.upload && why.code == boost::system::errc::io_error) {
    return error{errc::io,
                 fmt::format("{} changed or could not be read while it was sent",
                             call.upload->file.string()),
                 {}};
  }
  if (why.code == http::error::end_of_stream || why.code == http::error::partial_message) {
    return error{errc::io,
                 fmt::format("{} closed the connection before its answer was whole", address.text),
                 {}};
  }
  return error{errc::io, fmt::format("{}: {}", address.text, said), {}};
}

http_client::http_client(std::unique_ptr<state> s) : state_(std::move(s)) {}
http_client::http_client(http_client&&) noexcept = default;
http_client& http_client::operator=(http_client&&) noexcept = default;
http_client::~http_client() {
  if (state_) state_->close();
}

result<http_client> http_client::create(std::string_view address, std::string api_key) {
  auto parsed = parse_address(address);
  if (!parsed) return parsed.error();
  if (std::ranges::any_of(api_key, [](unsigned char c) { return c < 0x21 || c > 0x7e; })) {
    return error{errc::bad_request, "the API key holds white space or control characters", {}};
  }
  auto fresh = std::make_unique<state>();
  fresh->address = std::move(*parsed);
  fresh->api_key = std::move(api_key);
  error_code ignored;  // without a certificate store, verification says what is missing
  fresh->tls.set_default_verify_paths(ignored);
  return http_client(std::move(fresh));
}

result<http_answer> http_client::exchange(const http_call& call) {
  state& s = *state_;
  upload_form form;
  if (call.upload) {
    auto made = form_of(*call.upload);
    if (!made) return made.error();
    form = std::move(*made);
  }
  // A kept connection may have been closed meanwhile: then once more on a fresh one, as long as
  // nothing of an answer came.
  for (const bool kept : {s.socket() != nullptr, false}) {
    if (!kept) {
      s.close();
      if (const auto failure = s.open(call)) return s.failed(call, *failure);
    }
    http_answer answer;
    bool answered = false;
    const auto failure = s.secure ? s.exchange(*s.secure, call, form, answer, answered)
                                  : s.exchange(*s.plain, call, form, answer, answered);
    if (!failure) return answer;
    const bool stale = kept && !answered && !failure->stopped && !failure->timed_out;
    if (!stale) return s.failed(call, *failure);
  }
  ensure(false, "a fresh connection is never stale");
  return error{};
}

result<text::value> http_client::get_json(std::string target) {
  http_call call;
  call.target = std::move(target);
  const auto answer = exchange(call);
  if (!answer) return answer.error();
  if (answer->status / 100 != 2) return refusal_of(address(), *answer);
  return text::value::from_json(answer->body);
}

result<text::value> http_client::post_json(std::string target, std::string body) {
  http_call call;
  call.method = "POST";
  call.target = std::move(target);
  call.body = std::move(body);
  const auto answer = exchange(call);
  if (!answer) return answer.error();
  if (answer->status / 100 != 2) return refusal_of(address(), *answer);
  return text::value::from_json(answer->body);
}

const http_address& http_client::address() const { return state_->address; }

}  // namespace tandem::gateway::command
