// The program's log: one line an event, to stderr or a file.
//
//   2026-11-23T08:22:18.123Z warning 256 of 256 places in the queue are taken
//
// A line that its level hides costs one relaxed load. What users wrote cannot forge a line: control
// characters are written as escapes.
#pragma once

#include "runtime/result.hpp"

#include <fmt/format.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace tandem {

enum class log_level : std::uint8_t { trace, debug, info, warning, error, off };

// "info" and so on; anything else is refused with the names there are.
result<log_level> parse_log_level(std::string_view name);

// From here on to `file` (appended to; empty: stderr). Before the first call: stderr, from info on.
result<void> open_log(log_level least, const std::string& file);

namespace log_detail {
extern std::atomic<log_level> least;
}
inline bool log_shows(log_level l) {
  return l >= log_detail::least.load(std::memory_order_relaxed);
}

// One line. On its way to the disk before this returns when the level is warning or above.
void write_log(log_level l, std::string_view text);

template <class... Args>
void log_line(log_level l, fmt::format_string<Args...> text, Args&&... args) {
  if (log_shows(l)) write_log(l, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_debug(fmt::format_string<Args...> text, Args&&... args) {
  log_line(log_level::debug, text, std::forward<Args>(args)...);
}
template <class... Args>
void log_info(fmt::format_string<Args...> text, Args&&... args) {
  log_line(log_level::info, text, std::forward<Args>(args)...);
}
template <class... Args>
void log_warning(fmt::format_string<Args...> text, Args&&... args) {
  log_line(log_level::warning, text, std::forward<Args>(args)...);
}
template <class... Args>
void log_error(fmt::format_string<Args...> text, Args&&... args) {
  log_line(log_level::error, text, std::forward<Args>(args)...);
}

}  // namespace tandem
