#include "runtime/train/jsonl_lines.hpp"

#include "runtime/train/dataset.hpp"

namespace tandem::train {
namespace {

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

bool blank(std::string_view text) {
  return text.find_first_not_of(" \t\r") == std::string_view::npos;
}

}  // namespace

bool jsonl_lines::hand_over(std::string_view text, std::size_t bytes) {
  ++number_;
  if (number_ == 1 && text.starts_with(byte_order_mark)) {
    text.remove_prefix(byte_order_mark.size());
    bytes -= byte_order_mark.size();
  }
  if (text.ends_with('\r')) {
    text.remove_suffix(1);
    --bytes;
  }
  if (bytes > line_bytes_max) return to_({number_, {}, bytes});
  return blank(text) || to_({number_, text, bytes});
}

bool jsonl_lines::feed(std::string_view piece) {
  while (!piece.empty()) {
    const std::size_t end = piece.find('\n');
    const std::string_view part = piece.substr(0, end);
    if (begun_bytes_ == 0 && end != std::string_view::npos) {
      if (!hand_over(part, part.size())) return false;
    } else {
      begun_bytes_ += part.size();
      // One byte more than a line may have, and what may stand around it.
      if (begun_.size() <= line_bytes_max + byte_order_mark.size()) begun_ += part;
      if (end != std::string_view::npos && !finish()) return false;
    }
    if (end == std::string_view::npos) return true;
    piece.remove_prefix(end + 1);
  }
  return true;
}

bool jsonl_lines::finish() {
  if (begun_bytes_ == 0) return true;
  const bool more = hand_over(begun_, begun_bytes_);
  begun_.clear();
  begun_bytes_ = 0;
  return more;
}

}  // namespace tandem::train
