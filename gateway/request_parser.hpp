// Bytes of a connection into requests. Beast's parser does the grammar; here are the limits and
// what must be refused although it parses: everything that two servers could read in two ways
// (request smuggling, RFC 9112 section 11.2).
#pragma once

#include "gateway/http.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace tandem::gateway {

struct parser_limits {
  std::int64_t header_bytes_max = 0;
  std::int64_t body_bytes_max = 0;  // until limit_body() says otherwise
};

class request_parser {
 public:
  enum class outcome { need_more, head_done, complete, broken };

  explicit request_parser(const parser_limits& limits);
  ~request_parser();
  request_parser(request_parser&&) noexcept;
  request_parser& operator=(request_parser&&) noexcept;

  // Takes bytes from the front of `input` and removes them from it. `head_done` is told once,
  // before any byte of the body is taken. Call again with more bytes, never with none.
  outcome feed(std::string_view& input);

  // Known from head_done on; what was read so far when broken.
  const http_request& request() const;
  bool http_1_0() const;
  bool keep_alive() const;
  bool expects_continue() const;
  // Nothing for a chunked body.
  std::optional<std::uint64_t> content_length() const;

  // After head_done: the bound of this body. False (broken) when its length is known to be above.
  bool limit_body(std::int64_t bytes_max);
  void discard_body();      // read it, keep none of it
  std::string take_body();  // what has come since the last time, for bodies that are not kept whole
  std::size_t body_bytes_held() const;
  http_request take_request();           // when complete
  const http_response& problem() const;  // when broken

 private:
  class machine;
  std::unique_ptr<machine> machine_;
};

}  // namespace tandem::gateway
