// The program's log: one line an event, to stderr or a file.
//
//   2026-11-23T08:22:18.123Z warn  serve: 256 of 256 places in the queue are taken
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

namespace tandem::log {

enum class level : std::uint8_t { trace, debug, info, warn, error, off };

// "info" and so on; anything else is refused with the names there are.
result<level> parse_level(std::string_view name);

// From here on to `file` (appended to; empty: stderr). Before the first call: stderr, from info on.
result<void> open(level least, const std::string& file);

namespace detail {
extern std::atomic<level> least;
}
inline bool shows(level l) { return l >= detail::least.load(std::memory_order_relaxed); }

// One line, written before this returns when the level is warn or above. `part` names who speaks.
void write(level l, std::string_view part, std::string_view text);

template <class... Args>
void line(level l, std::string_view part, fmt::format_string<Args...> text, Args&&... args) {
  if (shows(l)) write(l, part, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void debug(std::string_view part, fmt::format_string<Args...> text, Args&&... args) {
  line(level::debug, part, text, std::forward<Args>(args)...);
}
template <class... Args>
void info(std::string_view part, fmt::format_string<Args...> text, Args&&... args) {
  line(level::info, part, text, std::forward<Args>(args)...);
}
template <class... Args>
void warn(std::string_view part, fmt::format_string<Args...> text, Args&&... args) {
  line(level::warn, part, text, std::forward<Args>(args)...);
}
template <class... Args>
void error(std::string_view part, fmt::format_string<Args...> text, Args&&... args) {
  line(level::error, part, text, std::forward<Args>(args)...);
}

}  // namespace tandem::log
