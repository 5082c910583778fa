// Reads server-sent events out of bytes that arrive in any pieces (WHATWG HTML, section 9.2.6):
// comments are skipped, several data lines are joined.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace tandem::gateway::command {

class event_stream {
 public:
  // Calls `on_data` with each whole event's data; false from it stops: no further call is made and
  // false is returned.
  bool feed(std::string_view bytes, const std::function<bool(std::string_view)>& on_data);

 private:
  bool end_line(const std::function<bool(std::string_view)>& on_data);

  std::string line_;
  std::string data_;
  bool has_data_ = false;
};

}  // namespace tandem::gateway::command
