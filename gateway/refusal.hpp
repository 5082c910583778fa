// The answers the server gives itself, before or instead of an endpoint, with OpenAI's error body.
#pragma once

#include "gateway/http.hpp"

#include <string>
#include <string_view>

namespace tandem::gateway {

// {"error": {"message", "type", "param": null, "code"}}; the type follows from the status, an empty
// code is null.
http_response refusal(int status, std::string_view message, std::string_view code = {});

// Bytes a client sent, fit to be quoted in a message: printable ASCII, at most 200 characters.
std::string quotable(std::string_view bytes);

}  // namespace tandem::gateway
