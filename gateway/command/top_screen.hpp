// The screen of `tandem top` as text: a pure function of the state and the size.
#pragma once

#include "gateway/command/top_state.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace tandem::gateway::command {

// At most `height` lines of at most `width` columns. Every role has a glyph of its own, so that
// without colours nothing is lost.
std::vector<std::string> draw_top(const top_state& state, std::size_t width, std::size_t height,
                                  bool colours);

// The role that held most of each of `cells` equal parts of the window, oldest first.
std::vector<std::optional<lease::role>> timeline(const std::vector<top_span>& spans,
                                                 std::int64_t from_ms, std::int64_t until_ms,
                                                 std::size_t cells);

}  // namespace tandem::gateway::command
