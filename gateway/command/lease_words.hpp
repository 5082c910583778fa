// Leases and their events in words, as several commands print them.
#pragma once

#include "gateway/command/console.hpp"
#include "runtime/text/value.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::gateway::command {

// "2025-11-25 20:54:00.120" (UTC).
std::string utc_moment(std::int64_t unix_ms);
// "cpu:0  serve -> train  latency_first: nobody waits": what happened, without its time and kind.
std::string event_words(const text::value& event);
// One line: time, kind, words. Control characters of a foreign server become blanks.
std::string event_line(const text::value& event);
// "serve SmolLM2" and a guest's job behind it.
std::string held_by(const text::value& device);
// What goes into an address as it is.
bool is_device_name(std::string_view name);
// "cpu:0, cpu:1" out of /admin/leases.
std::string device_names(const text::value& leases);
// The columns that lines may have: of the terminal or $COLUMNS; a pipe gets whole lines.
std::size_t line_columns(const console& io);

}  // namespace tandem::gateway::command
