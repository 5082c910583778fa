// multipart/form-data as it comes, in pieces cut anywhere (RFC 2046 section 5.1, RFC 7578): bytes
// of a part are handed on at once, so memory is bounded whatever the size of a file. A boundary is
// one only at the beginning of a line and when nothing but blanks follow it. Lines end as the first
// boundary's does: CRLF, or LF alone where hands wrote it.
#pragma once

#include "gateway/openai/multipart_headers.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::gateway::openai {

// What it refuses ends the body.
class multipart_listener {
 public:
  virtual ~multipart_listener() = default;
  virtual result<void> on_part(const multipart_part& part) = 0;
  virtual result<void> on_data(std::string_view bytes) = 0;  // never empty
  virtual result<void> on_part_end() = 0;
};

class multipart_parser {
 public:
  static constexpr std::size_t header_bytes_max = 16 << 10;    // of one part
  static constexpr std::size_t preamble_bytes_max = 16 << 10;  // before the first boundary
  static constexpr int parts_max = 64;

  // `boundary` as multipart_boundary gives it; `to` outlives this.
  multipart_parser(std::string_view boundary, multipart_listener& to);

  result<void> feed(std::string_view bytes);
  // The body has ended: refused when its last boundary is missing.
  result<void> finish();

 private:
  enum class place : std::uint8_t { preamble, headers, data, epilogue };
  enum class ending : std::uint8_t { unknown, none, part, last };  // what follows a boundary

  result<bool> step();  // false: needs more bytes
  result<bool> in_preamble();
  result<bool> in_headers();
  result<bool> in_data();
  result<void> hand_on(std::size_t bytes);
  ending after_boundary(std::size_t at, std::size_t& end);

  const std::string dashed_;  // "--boundary"
  multipart_listener& to_;
  std::string newline_;  // known from the first boundary on
  std::string mark_;     // newline and dashed_
  place place_ = place::preamble;
  std::string input_;       // not yet understood
  std::size_t at_ = 0;      // of input_, what is understood
  std::size_t silent_ = 0;  // bytes at at_ that belong to the header block, not to the data
  std::size_t preamble_bytes_ = 0;
  bool line_begins_ = true;  // in the preamble
  int parts_ = 0;
};

}  // namespace tandem::gateway::openai
