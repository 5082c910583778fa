// Cuts a file that arrives in pieces into lines, with bounded memory: never more than one line of
// `line_bytes_max` and the piece at hand. Lines end with \n or \r\n; a byte-order mark is skipped.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace tandem::train {

class jsonl_lines {
 public:
  struct line {
    std::int64_t number = 0;  // from 1, blank lines counted
    std::string_view text;    // without its end; empty when too long
    std::size_t bytes = 0;    // more than line_bytes_max: too long
  };
  // Hears each line that is not blank; false gives up. `text` is valid during the call.
  using listener = std::function<bool(const line&)>;

  explicit jsonl_lines(listener to) : to_(std::move(to)) {}
  bool feed(std::string_view piece);
  bool finish();  // the last line, when it has no end

 private:
  bool hand_over(std::string_view text, std::size_t bytes);

  listener to_;
  std::string begun_;            // the beginning of a line whose end has not come yet
  std::size_t begun_bytes_ = 0;  // of it, also those dropped as too many
  std::int64_t number_ = 0;
};

}  // namespace tandem::train
