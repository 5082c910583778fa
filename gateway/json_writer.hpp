// JSON out, appended to a string: what every body, chunk and error is written with. A streamed
// token is one chunk, so this is the per-token cost of the gateway: no tree, no stream, no locale.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::gateway {

// The text as a JSON string with its quotes. Valid UTF-8 goes in as it is; each byte that is none
// becomes U+FFFD, so that what comes out is always JSON.
void append_json_string(std::string& out, std::string_view text);
// The same without the quotes.
void append_json_escaped(std::string& out, std::string_view text);

void append_number(std::string& out, std::int64_t number);
// The shortest digits that read back as the same number. JSON knows no infinities and no NaN:
// `otherwise` stands in for them.
void append_number(std::string& out, float number, std::string_view otherwise = "null");
void append_number(std::string& out, double number, std::string_view otherwise = "null");

// Broken sequences as U+FFFD, one for each byte that cannot be read.
std::string to_valid_utf8(std::string_view bytes);
// Characters (code points) of valid UTF-8.
std::int64_t characters(std::string_view utf8);

}  // namespace tandem::gateway
