// Finds stop strings in text that arrives in pieces, and says how much of it may already be sent.
// The result does not depend on where the pieces are cut: the stop string that ends first wins, of
// those that end together the one that begins first.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::serve {

class stop_matcher {
 public:
  // Stop strings are whole UTF-8 texts; empty ones match nothing.
  stop_matcher(std::vector<std::string> stops, bool include_stop);

  struct piece {
    std::string text;                        // can no longer be part of a stop string
    std::optional<std::string> stop_string;  // found: the text ends here, the rest is dropped
  };
  piece add(std::string_view text);
  // Text in which nothing is looked for: all of it may be sent, and what was held back before it.
  std::string pass(std::string_view text);
  // The end of the text: what was held back.
  std::string finish();

 private:
  struct pattern {
    std::string text;
    std::vector<std::size_t> fallback;  // Knuth, Morris, Pratt 1977
    std::size_t matched = 0;            // so many last bytes of the text begin this stop string
    bool advance(char c);               // true: complete
  };

  std::vector<pattern> patterns_;
  bool include_stop_;
  std::string held_;
};

}  // namespace tandem::serve
