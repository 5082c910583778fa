#include "gateway/openai/multipart_parser.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::gateway::openai {

namespace {

// Blanks that may stand between a boundary and the end of its line (transport padding).
constexpr std::size_t padding_bytes_max = 256;

error malformed(std::string what) {
  return {errc::bad_request, "The multipart body is malformed: " + std::move(what) + ".", {}};
}

}  // namespace

multipart_parser::multipart_parser(std::string_view boundary, multipart_listener& to)
    : dashed_("--" + std::string(boundary)), to_(to) {}

result<void> multipart_parser::feed(std::string_view bytes) {
  if (place_ == place::epilogue) return {};
  input_ += bytes;
  for (;;) {
    const auto more = step();
    if (!more) return more.error();
    if (!*more) break;
  }
  input_.erase(0, at_);
  at_ = 0;
  return {};
}

result<void> multipart_parser::finish() {
  if (place_ == place::epilogue) return {};
  if (place_ == place::preamble)
    return malformed("its boundary, as the Content-Type names it, is not in it");
  return malformed("it ends before its last boundary");
}

result<bool> multipart_parser::step() {
  switch (place_) {
    case place::preamble:
      return in_preamble();
    case place::headers:
      return in_headers();
    case place::data:
      return in_data();
    case place::epilogue:
      at_ = input_.size();
      break;
  }
  return false;
}

// What stands behind a boundary that ends at `at`; `end` is set to behind that.
multipart_parser::ending multipart_parser::after_boundary(std::size_t at, std::size_t& end) {
  const std::string_view rest = std::string_view(input_).substr(at);
  if (rest.starts_with("--")) {
    end = at + 2;
    return ending::last;
  }
  if (rest == "-") return ending::unknown;
  const std::size_t blanks = std::min(rest.find_first_not_of(" \t"), rest.size());
  if (blanks > padding_bytes_max) return ending::none;
  const std::string_view line_end = rest.substr(blanks);
  if (line_end.empty()) return ending::unknown;
  for (const std::string_view newline : {std::string_view("\r\n"), std::string_view("\n")}) {
    if (!newline_.empty() && newline != newline_) continue;
    if (line_end.starts_with(newline)) {
      end = at + blanks + newline.size();
      newline_ = newline;
      return ending::part;
    }
    if (newline.starts_with(line_end)) return ending::unknown;
  }
  return ending::none;
}

// Line by line: the first boundary stands at the beginning of one.
result<bool> multipart_parser::in_preamble() {
  const std::string_view rest = std::string_view(input_).substr(at_);
  if (rest.empty()) return false;
  if (line_begins_) {
    if (rest.size() < dashed_.size() && std::string_view(dashed_).starts_with(rest)) return false;
    if (rest.starts_with(dashed_)) {
      std::size_t end = 0;
      switch (after_boundary(at_ + dashed_.size(), end)) {
        case ending::unknown:
          return false;
        case ending::last:
          at_ = end;
          place_ = place::epilogue;
          return true;
        case ending::part:
          at_ = end;
          mark_ = newline_ + dashed_;
          place_ = place::headers;
          return true;
        case ending::none:
          break;
      }
    }
  }
  const std::size_t line_end = rest.find('\n');
  const std::size_t skipped = line_end == rest.npos ? rest.size() : line_end + 1;
  line_begins_ = line_end != rest.npos;
  at_ += skipped;
  preamble_bytes_ += skipped;
  if (preamble_bytes_ > preamble_bytes_max)
    return malformed(
        fmt::format("its boundary, as the Content-Type names it, is not within the "
                    "first {} bytes",
                    preamble_bytes_max));
  return true;
}

result<bool> multipart_parser::in_headers() {
  const std::string_view rest = std::string_view(input_).substr(at_);
  // The block ends with an empty line, which may be the very first.
  std::size_t size = 0;
  if (!rest.starts_with(newline_)) {
    if (std::string_view(newline_).starts_with(rest)) return false;
    const std::size_t found = rest.find(newline_ + newline_);
    if (found == rest.npos ? rest.size() > header_bytes_max : found > header_bytes_max)
      return malformed(
          fmt::format("the headers of a part are larger than {} bytes", header_bytes_max));
    if (found == rest.npos) return false;
    size = found + newline_.size();
  }
  if (++parts_ > parts_max) return malformed(fmt::format("it has more than {} parts", parts_max));
  const auto part = read_part_headers(rest.substr(0, size));
  if (!part) return part.error();
  if (const auto taken = to_.on_part(*part); !taken) return taken.error();
  // The empty line's own end stays: it is the line end of a boundary that follows at once.
  at_ += size;
  silent_ = newline_.size();
  place_ = place::data;
  return true;
}

result<bool> multipart_parser::in_data() {
  const std::size_t found = input_.find(mark_, at_);
  if (found == input_.npos) {
    // The last bytes may be the beginning of a boundary.
    const std::size_t kept = std::min(input_.size() - at_, mark_.size() - 1);
    if (const auto done = hand_on(input_.size() - at_ - kept); !done) return done.error();
    return false;
  }
  std::size_t end = 0;
  const ending follows = after_boundary(found + mark_.size(), end);
  if (follows == ending::none) {
    // A longer word that only begins like it: no boundary can begin within it.
    if (const auto done = hand_on(found - at_ + mark_.size()); !done) return done.error();
    return true;
  }
  if (const auto done = hand_on(found - at_); !done) return done.error();
  if (follows == ending::unknown) return false;
  if (const auto done = to_.on_part_end(); !done) return done.error();
  at_ = end;
  silent_ = 0;
  place_ = follows == ending::last ? place::epilogue : place::headers;
  return true;
}

result<void> multipart_parser::hand_on(std::size_t bytes) {
  const std::size_t quiet = std::min(bytes, silent_);
  silent_ -= quiet;
  at_ += quiet;
  bytes -= quiet;
  if (bytes == 0) return {};
  const auto taken = to_.on_data(std::string_view(input_).substr(at_, bytes));
  at_ += bytes;
  return taken;
}

}  // namespace tandem::gateway::openai
