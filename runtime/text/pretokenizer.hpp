// Splits a text into pieces, which the model then encodes one by one: words, numbers, runs of
// spaces. A list of steps read from the file, run in order over the pieces of the step before.
#pragma once

#include "runtime/text/regex.hpp"
#include "runtime/text/utf8.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace tandem::text {

// A text and its pieces. `text` is the caller's until a step rewrites it into `storage`.
struct split_text {
  std::string_view text;
  std::vector<text_range> pieces;
  bool at_start = true;  // the first piece begins where the whole input begins
  std::string storage;
};

// What becomes of the parts that match.
enum class split_behavior : std::uint8_t {
  removed,
  isolated,
  merged_with_previous,
  merged_with_next,
  contiguous
};
enum class prepend_scheme : std::uint8_t { always, first, never };

using character_test = bool (*)(char32_t);

struct regex_split {
  regex pattern;
  split_behavior behavior = split_behavior::isolated;
  bool invert = false;
};
struct literal_split {
  std::string literal;
  split_behavior behavior = split_behavior::isolated;
  bool invert = false;
};
// Every character of the class is a match of its own.
struct character_split {
  character_test matches = nullptr;
  split_behavior behavior = split_behavior::isolated;
};
// Runs of word characters and runs of neither word nor space.
struct word_split {};
// Pieces of so many characters.
struct length_split {
  std::size_t characters = 1;
};
// Spaces become `replacement`, one stands before the piece by `scheme`; split before each.
struct metaspace_split {
  std::string replacement;
  prepend_scheme scheme = prepend_scheme::always;
  bool split = true;
};
// GPT-2's: words by `pattern` when there is one, bytes in the printable alphabet when `encode`
// (not needed when the model reads bytes).
struct byte_level_split {
  std::optional<regex> pattern;
  bool add_prefix_space = false;
  bool encode = true;
};

using split_step = std::variant<regex_split, literal_split, character_split, word_split,
                                length_split, metaspace_split, byte_level_split>;

class pre_tokenizer {
 public:
  void add(split_step step);
  bool empty() const { return steps_.empty(); }
  // True when the last step writes bytes in the printable alphabet; it stops doing so. The model
  // must then read bytes.
  bool leave_bytes_to_model();
  void run(split_text& text) const;

 private:
  std::vector<split_step> steps_;
};

// GPT-2's own pattern.
extern const std::string_view gpt2_pattern;

}  // namespace tandem::text
