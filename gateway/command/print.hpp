// How commands print: aligned tables, sizes, durations.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::gateway::command {

// "98.4 MB"; decimal units, as disks and networks count.
std::string human_bytes(std::uint64_t bytes);
// "512 MiB"; binary units, as memory is counted.
std::string human_memory(std::uint64_t bytes);
// "45s", "2m05s", "3h10m", "2d04h".
std::string human_duration(std::int64_t seconds);

// Characters, not bytes: model names may hold any script.
std::size_t columns_of(std::string_view text);
// The text in at most so many columns, its loss shown by "…".
std::string shortened(std::string_view text, std::size_t columns);

// Rows of equal length, the first the heading; columns as wide as their widest cell. Numbers are
// the caller's to align.
void print_table(std::ostream& out, const std::vector<std::vector<std::string>>& rows);

// Text as a JSON string, quotes included.
std::string json_text(std::string_view text);

}  // namespace tandem::gateway::command
