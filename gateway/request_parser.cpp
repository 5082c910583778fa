// Beast 1.81 asserts that an empty chunked body's end comes in two pieces at most (n >= 5 in
// parse_chunk_header); a client that sends "0\r\n" and then "\r" would end the process. The code
// after the assertion handles it, so assertions are off in this file.
#define BOOST_DISABLE_ASSERTS

#include "gateway/request_parser.hpp"

#include "gateway/percent_encoding.hpp"
#include "gateway/refusal.hpp"

#include <boost/beast/core/error.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>

#include <algorithm>
#include <utility>

namespace tandem::gateway {

namespace {

namespace http = boost::beast::http;
using boost::beast::error_code;

constexpr std::size_t simdjson_padding = 64;

std::string_view std_view(boost::beast::string_view text) { return {text.data(), text.size()}; }

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string lower_case(std::string_view text) {
  std::string lowered(text);
  std::transform(lowered.begin(), lowered.end(), lowered.begin(), lower);
  return lowered;
}

std::size_t count_of(const header_list& headers, std::string_view name) {
  return static_cast<std::size_t>(std::count_if(
      headers.begin(), headers.end(), [&](const auto& field) { return field.first == name; }));
}

// "/a?b", "http://host/a?b" or "*" into path and query; false when it is none of them.
bool split_target(std::string_view target, std::string_view method, http_request& into) {
  if (target == "*" && method == "OPTIONS") {
    into.path = "*";
    return true;
  }
  const std::string scheme = lower_case(target.substr(0, 8));
  if (scheme.starts_with("http://") || scheme == "https://") {
    target.remove_prefix(target.find("//") + 2);
    target.remove_prefix(std::min(target.find_first_of("/?"), target.size()));
  } else if (!target.starts_with('/')) {
    return false;
  }
  target = target.substr(0, target.find('#'));
  const std::size_t mark = target.find('?');
  auto path = percent_decode(target.substr(0, mark));
  if (!path) return false;
  into.path = path->empty() ? "/" : std::move(*path);
  if (mark != std::string_view::npos) into.query = target.substr(mark + 1);
  return true;
}

http_response explain(const error_code& why, const parser_limits& limits) {
  if (why == http::error::header_limit)
    return refusal(431,
                   "The request's headers are larger than " +
                       std::to_string(limits.header_bytes_max) + " bytes.",
                   "headers_too_large");
  if (why == http::error::body_limit)
    return refusal(
        413,
        "The request's body is larger than " + std::to_string(limits.body_bytes_max) + " bytes.",
        "request_too_large");
  if (why == http::error::bad_version)
    return refusal(505, "Only HTTP/1.0 and HTTP/1.1 are spoken here.", "http_version");
  return refusal(400, "This is not a valid HTTP request: " + why.message() + ".",
                 "malformed_request");
}

}  // namespace

class request_parser::machine final : public http::basic_parser<true> {
 public:
  explicit machine(const parser_limits& limits) : limits_(limits) {
    header_limit(static_cast<std::uint32_t>(limits.header_bytes_max));
    body_limit(boost::none);  // counted here: the bound depends on the route
    eager(false);
  }

  outcome feed(std::string_view& input) {
    while (!input.empty()) {
      error_code ec;
      input.remove_prefix(put(boost::asio::const_buffer(input.data(), input.size()), ec));
      if (ec == http::error::need_more) {
        // Only a header, a chunk's line or a trailer can be incomplete and yet have bytes left.
        if (static_cast<std::int64_t>(input.size()) <= limits_.header_bytes_max) break;
        ec = http::error::header_limit;
      }
      if (ec) return fail(explain(ec, limits_));
      if (is_header_done() && !head_told_) {
        head_told_ = true;
        if (!check_head()) return outcome::broken;
        return outcome::head_done;
      }
      if (is_done()) return complete();
    }
    return outcome::need_more;
  }

  bool limit_body(std::int64_t bytes_max) {
    limits_.body_bytes_max = bytes_max;
    const auto length = chunked() ? boost::none : content_length();
    if (!length || *length <= static_cast<std::uint64_t>(bytes_max)) return true;
    fail(explain(http::error::body_limit, limits_));
    return false;
  }

  // A request without a body is complete with its head, told apart in two calls.
  bool finished() const { return head_told_ && is_done(); }

  outcome complete() {
    request_.body.reserve(request_.body.size() + simdjson_padding);
    return outcome::complete;
  }

  http_request request_;
  http_response problem_;
  bool http_1_0_ = false;
  bool discard_ = false;
  bool head_told_ = false;

 private:
  outcome fail(http_response why) {
    problem_ = std::move(why);
    return outcome::broken;
  }

  bool refuse(int status, std::string_view message, std::string_view code) {
    fail(refusal(status, message, code));
    return false;
  }

  bool check_head() {
    const header_list& headers = request_.headers;
    const std::size_t hosts = count_of(headers, "host");
    if (hosts > 1 || (hosts == 0 && !http_1_0_))
      return refuse(400, "A request names its Host exactly once.", "bad_host");
    if (count_of(headers, "content-length") > 1)
      return refuse(400, "A request has one Content-Length.", "malformed_request");
    if (count_of(headers, "transfer-encoding") > 0) {
      if (http_1_0_ || count_of(headers, "transfer-encoding") > 1)
        return refuse(400, "This Transfer-Encoding cannot be trusted.", "malformed_request");
      if (lower_case(request_.header("transfer-encoding")) != "chunked")
        return refuse(501, "The only Transfer-Encoding understood is chunked.",
                      "transfer_encoding");
    }
    if (!split_target(target_, request_.method, request_))
      return refuse(400, "The request's target is not a path: " + quotable(target_) + ".",
                    "malformed_request");
    return true;
  }

  void on_request_impl(http::verb, boost::beast::string_view method,
                       boost::beast::string_view target, int version, error_code&) override {
    request_.method = std_view(method);
    target_ = std_view(target);
    http_1_0_ = version == 10;
  }

  void on_field_impl(http::field, boost::beast::string_view name, boost::beast::string_view value,
                     error_code&) override {
    // Trailers are read and dropped: nothing here may be decided after the body.
    if (head_told_) return;
    request_.headers.emplace_back(lower_case(std_view(name)), std::string(std_view(value)));
  }

  std::size_t on_body_impl(boost::beast::string_view bytes, error_code& ec) override {
    body_bytes_ += static_cast<std::int64_t>(bytes.size());
    if (body_bytes_ > limits_.body_bytes_max) {
      ec = http::error::body_limit;
      return 0;
    }
    if (!discard_) {
      // Grow with what has come, not with what the header promises.
      if (request_.body.empty())
        request_.body.reserve(std::min<std::size_t>(content_length().value_or(0), 64 << 10) +
                              simdjson_padding);
      request_.body.append(bytes.data(), bytes.size());
    }
    return bytes.size();
  }

  std::size_t on_chunk_body_impl(std::uint64_t, boost::beast::string_view bytes,
                                 error_code& ec) override {
    return on_body_impl(bytes, ec);
  }

  void on_response_impl(int, boost::beast::string_view, int, error_code&) override {}
  void on_header_impl(error_code&) override {}
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
  // A chunk says how long it is: one that goes too far is refused before it comes.
  void on_chunk_header_impl(std::uint64_t bytes, boost::beast::string_view,
                            error_code& ec) override {
    if (bytes > static_cast<std::uint64_t>(limits_.body_bytes_max - body_bytes_))
      ec = http::error::body_limit;
  }
  void on_finish_impl(error_code&) override {}

  parser_limits limits_;
  std::int64_t body_bytes_ = 0;
  std::string target_;
};

request_parser::request_parser(const parser_limits& limits)
    : machine_(std::make_unique<machine>(limits)) {}
request_parser::~request_parser() = default;
request_parser::request_parser(request_parser&&) noexcept = default;
request_parser& request_parser::operator=(request_parser&&) noexcept = default;

request_parser::outcome request_parser::feed(std::string_view& input) {
  return machine_->finished() ? machine_->complete() : machine_->feed(input);
}

const http_request& request_parser::request() const { return machine_->request_; }
bool request_parser::http_1_0() const { return machine_->http_1_0_; }
bool request_parser::keep_alive() const { return machine_->head_told_ && machine_->keep_alive(); }

bool request_parser::expects_continue() const {
  return !http_1_0() && lower_case(request().header("expect")) == "100-continue";
}

std::optional<std::uint64_t> request_parser::content_length() const {
  if (machine_->chunked()) return std::nullopt;
  const auto length = machine_->content_length();
  return length ? *length : 0;
}

bool request_parser::limit_body(std::int64_t bytes_max) { return machine_->limit_body(bytes_max); }
std::string request_parser::take_body() { return std::exchange(machine_->request_.body, {}); }
void request_parser::discard_body() { machine_->discard_ = true; }
std::size_t request_parser::body_bytes_held() const { return machine_->request_.body.size(); }
http_request request_parser::take_request() { return std::move(machine_->request_); }
const http_response& request_parser::problem() const { return machine_->problem_; }

}  // namespace tandem::gateway
