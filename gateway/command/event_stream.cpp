#include "gateway/command/event_stream.hpp"

#include <utility>

namespace tandem::gateway::command {

bool event_stream::feed(std::string_view bytes,
                        const std::function<bool(std::string_view)>& on_data) {
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    line_ += bytes.substr(0, end);
    if (end == std::string_view::npos) return true;
    bytes.remove_prefix(end + 1);
    if (!end_line(on_data)) return false;
  }
  return true;
}

bool event_stream::end_line(const std::function<bool(std::string_view)>& on_data) {
  if (line_.ends_with('\r')) line_.pop_back();
  if (line_.empty()) {
    const bool whole = has_data_;
    has_data_ = false;
    const std::string data = std::exchange(data_, {});
    return !whole || on_data(data);
  }
  if (line_.starts_with("data:")) {
    std::string_view text = std::string_view(line_).substr(5);
    if (text.starts_with(' ')) text.remove_prefix(1);
    if (has_data_) data_ += '\n';
    data_ += text;
    has_data_ = true;
  }
  line_.clear();
  return true;
}

}  // namespace tandem::gateway::command
