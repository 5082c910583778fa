// The one table from error codes to what HTTP clients see: status, OpenAI's error body, and the
// headers that tell a client whether and when to try again.
#pragma once

#include "gateway/http.hpp"
#include "runtime/result.hpp"

#include <string>
#include <string_view>

namespace tandem::gateway {

struct http_error {
  int status = 500;
  std::string_view type;  // OpenAI's: "invalid_request_error", ...
  std::string_view code;  // empty: null
  // openai clients repeat 408, 409, 429 and 5xx by themselves, unless told otherwise.
  bool retry = false;
  int retry_after_ms = 0;  // with `retry`; 0: no header
};

// `why.param` is looked at too: an unknown "model" is `model_not_found`, and a request field that
// is not built here is the request's fault (400) while a whole route is ours (501).
http_error describe(const error& why);

// {"error": {"message", "type", "param", "code"}}; an empty parameter or code is null.
std::string error_body(std::string_view message, std::string_view type, std::string_view param,
                       std::string_view code);
std::string error_body(const error& why);

// The whole answer.
http_response error_response(const error& why);

}  // namespace tandem::gateway
