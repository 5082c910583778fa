// One HTTP GET with libcurl: redirects stay on http(s), and the token stays with the host it is
// for.
#pragma once

#include "runtime/result.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::model {

struct http_head {
  long status = 0;
  std::string etag;
  std::optional<std::uint64_t> range_start;  // of a 206
  std::optional<std::uint64_t> content_bytes;
  std::optional<std::int64_t> retry_after_s;
};

struct http_request {
  std::string url;
  std::string token;
  std::vector<std::string> headers;  // "Range: bytes=5-"
  // The body as it comes, redirects' bodies aside; an error ends the transfer and is passed on.
  std::function<result<void>(const http_head& head, std::string_view bytes)> body;
  std::function<bool()> cancelled;
};

// An error is a transfer that failed (errc::io, or what `body` said); any status is a success here.
result<http_head> http_get(const http_request& request);

std::string url_escaped(std::string_view text, bool keep_slashes);

}  // namespace tandem::model
