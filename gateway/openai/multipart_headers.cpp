#include "gateway/openai/multipart_headers.hpp"

#include "gateway/json_writer.hpp"
#include "gateway/percent_encoding.hpp"
#include "gateway/refusal.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace tandem::gateway::openai {

namespace {

constexpr std::size_t boundary_bytes_max = 70;  // RFC 2046, section 5.1.1
constexpr std::size_t lines_max = 32;
constexpr std::size_t name_bytes_max = 256;

error malformed(std::string what) {
  return {errc::bad_request, "The multipart body is malformed: " + std::move(what) + ".", {}};
}

bool is_space(char c) { return c == ' ' || c == '\t'; }

// RFC 9110, section 5.6.2.
bool is_token_character(char c) {
  constexpr std::string_view marks = "!#$%&'*+-.^_`|~";
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         marks.find(c) != marks.npos;
}

// RFC 2046's bchars; a space may be within, not last.
bool is_boundary_character(char c) {
  constexpr std::string_view marks = "'()+_,-./:=? ";
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         marks.find(c) != marks.npos;
}

std::string lower(std::string_view text) {
  std::string lowered(text);
  for (char& c : lowered)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lowered;
}

void skip_spaces(std::string_view& text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
}

std::string_view take_token(std::string_view& text) {
  std::size_t size = 0;
  while (size < text.size() && is_token_character(text[size])) ++size;
  const std::string_view token = text.substr(0, size);
  text.remove_prefix(size);
  return token;
}

// Behind the opening quote. A backslash escapes a quote or itself; before anything else it stands
// for itself, as in the paths old browsers send.
std::optional<std::string> take_quoted(std::string_view& text) {
  std::string value;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '"') {
      text.remove_prefix(at + 1);
      return value;
    }
    const bool escape =
        c == '\\' && at + 1 < text.size() && (text[at + 1] == '"' || text[at + 1] == '\\');
    value += escape ? text[++at] : c;
  }
  return std::nullopt;
}

struct header_value {
  std::string main;                                             // lower case: "form-data"
  std::vector<std::pair<std::string, std::string>> parameters;  // names in lower case
  const std::string* find(std::string_view name) const {
    for (const auto& [key, value] : parameters)
      if (key == name) return &value;
    return nullptr;
  }
};

// "form-data; name=x; filename="y"". `slashes`: the main value is a media type.
result<header_value> read_header_value(std::string_view text, bool slashes) {
  header_value read;
  skip_spaces(text);
  read.main = lower(take_token(text));
  if (slashes && text.starts_with('/')) {
    text.remove_prefix(1);
    read.main += '/' + lower(take_token(text));
  }
  for (;;) {
    skip_spaces(text);
    if (text.empty()) return read;
    if (text.front() != ';') return malformed("a parameter does not follow ';'");
    text.remove_prefix(1);
    skip_spaces(text);
    if (text.empty()) return read;  // a last ';' is harmless
    const std::string name = lower(take_token(text));
    skip_spaces(text);
    if (name.empty() || !text.starts_with('='))
      return malformed("a parameter is not written name=value");
    text.remove_prefix(1);
    skip_spaces(text);
    std::optional<std::string> value;
    if (text.starts_with('"')) {
      text.remove_prefix(1);
      value = take_quoted(text);
      if (!value) return malformed(fmt::format("the quote of '{}' does not end", name));
    } else {
      // Beyond tokens: names with spaces or UTF-8 are sent bare by some.
      const std::size_t end = std::min(text.find(';'), text.size());
      std::string_view bare = text.substr(0, end);
      while (!bare.empty() && is_space(bare.back())) bare.remove_suffix(1);
      value = std::string(bare);
      text.remove_prefix(end);
    }
    if (read.find(name) != nullptr) return malformed(fmt::format("'{}' is given twice", name));
    read.parameters.emplace_back(name, std::move(*value));
  }
}

// UTF-8''%e2%82%ac (RFC 8187).
result<std::string> extended_value(std::string_view text) {
  const std::size_t first = text.find('\'');
  const std::size_t second = first == text.npos ? text.npos : text.find('\'', first + 1);
  const std::string charset = lower(text.substr(0, first));
  if (second == text.npos || (charset != "utf-8" && charset != "iso-8859-1"))
    return malformed("filename* is not written UTF-8''name");
  const auto bytes = percent_decode(text.substr(second + 1));
  if (!bytes) return malformed("an escape in filename* is broken");
  if (charset == "utf-8") return *bytes;
  std::string utf8;
  for (const char c : *bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      utf8 += c;
    } else {
      utf8 += static_cast<char>(0xc0 | (byte >> 6));
      utf8 += static_cast<char>(0x80 | (byte & 0x3f));
    }
  }
  return utf8;
}

// What browsers and httpx escape in a quoted name, and nothing else (WHATWG's form-data encoding).
std::string unescape(std::string_view text) {
  std::string plain;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const std::string code = lower(text.substr(at, 3));
    const bool escape = code == "%22" || code == "%0d" || code == "%0a";
    if (escape) at += 2;
    plain += !escape ? text[at] : code == "%22" ? '"' : code == "%0d" ? '\r' : '\n';
  }
  return plain;
}

result<void> set_disposition(std::string_view value, multipart_part& part) {
  auto read = read_header_value(value, false);
  if (!read) return read.error();
  if (read->main != "form-data") return malformed("a Content-Disposition is not form-data");
  const std::string* const name = read->find("name");
  if (name == nullptr) return malformed("a part has no name");
  part.name = unescape(*name);
  if (part.name.size() > name_bytes_max)
    return malformed(fmt::format("a part's name is longer than {} bytes", name_bytes_max));
  if (const std::string* const plain = read->find("filename")) part.filename = unescape(*plain);
  if (const std::string* const extended = read->find("filename*")) {
    auto decoded = extended_value(*extended);
    if (!decoded) return decoded.error();
    part.filename = std::move(*decoded);
  }
  return {};
}

}  // namespace

result<std::string> multipart_boundary(std::string_view content_type) {
  const auto refused = [&](std::string_view what) {
    return error{errc::bad_request,
                 fmt::format("Send the file as multipart/form-data with a boundary, but {}.", what),
                 {}};
  };
  if (content_type.empty()) return refused("there is no Content-Type");
  const auto read = read_header_value(content_type, true);
  if (!read || read->main != "multipart/form-data")
    return refused(fmt::format("the Content-Type is '{}'", quotable(content_type)));
  const std::string* const boundary = read->find("boundary");
  if (boundary == nullptr) return refused("its Content-Type names none");
  if (boundary->empty() || boundary->size() > boundary_bytes_max || boundary->back() == ' ' ||
      !std::all_of(boundary->begin(), boundary->end(), is_boundary_character))
    return refused(fmt::format("'{}' can be none: 1 to {} letters, digits or '()+_,-./:=?",
                               quotable(*boundary), boundary_bytes_max));
  return *boundary;
}

result<multipart_part> read_part_headers(std::string_view block) {
  std::vector<std::string> lines;
  while (!block.empty()) {
    const std::size_t end = std::min(block.find('\n'), block.size());
    std::string_view line = block.substr(0, end);
    block.remove_prefix(std::min(end + 1, block.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    if (is_space(line.front()) && !lines.empty()) {
      lines.back() += line;  // a folded line goes on
    } else {
      if (lines.size() == lines_max)
        return malformed(fmt::format("a part has more than {} header lines", lines_max));
      lines.emplace_back(line);
    }
  }
  multipart_part part;
  bool disposed = false;
  for (const std::string_view line : lines) {
    std::string_view rest = line;
    const std::string name = lower(take_token(rest));
    if (name.empty() || !rest.starts_with(':'))
      return malformed(fmt::format("'{}' is no header line", quotable(line)));
    rest.remove_prefix(1);
    skip_spaces(rest);
    if (rest.find('\0') != rest.npos) return malformed("a header holds a NUL");
    if (name == "content-disposition") {
      if (disposed) return malformed("a part has two Content-Dispositions");
      disposed = true;
      if (const auto set = set_disposition(rest, part); !set) return set.error();
    } else if (name == "content-type") {
      part.content_type = to_valid_utf8(rest);
    } else if (name == "content-transfer-encoding") {
      const std::string encoding = lower(rest);
      if (encoding != "binary" && encoding != "8bit" && encoding != "7bit")
        return malformed(
            fmt::format("the Content-Transfer-Encoding '{}' is not read: send the "
                        "bytes as they are",
                        quotable(rest)));
    }
  }
  if (!disposed) return malformed("a part has no Content-Disposition");
  return part;
}

}  // namespace tandem::gateway::openai
