// The header block of one part of multipart/form-data, and the Content-Type that announces the
// whole (RFC 7578, RFC 2046 section 5.1, RFC 2183, RFC 8187).
#pragma once

#include "runtime/result.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace tandem::gateway::openai {

struct multipart_part {
  std::string name;                     // of the field
  std::optional<std::string> filename;  // set: a file, even when it is empty
  std::string content_type;             // as sent; empty: none
};

// "multipart/form-data; boundary=x": the boundary, 1 to 70 characters.
result<std::string> multipart_boundary(std::string_view content_type);

// Lines without the empty one at the end; ends of lines are CRLF or LF.
result<multipart_part> read_part_headers(std::string_view block);

}  // namespace tandem::gateway::openai
