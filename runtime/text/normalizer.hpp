// What is done to a text before it is split: Unicode forms, case, replacements. A list of steps
// read from the file, run in order.
#pragma once

#include "runtime/text/charsmap.hpp"
#include "runtime/text/regex.hpp"
#include "runtime/text/utf8.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace tandem::text {

// A text on its way through the steps. `trusted`, when not empty, has one mark a byte: that byte
// comes from nothing but trusted text.
struct normalized_text {
  std::string text;
  std::vector<char> trusted;
  bool at_start = true;  // the first character is still the first of the whole input
};

enum class unicode_form : std::uint8_t { nfc, nfd, nfkc, nfkd };

struct unicode_step {
  unicode_form form = unicode_form::nfc;
};
struct lowercase_step {};
struct strip_step {
  bool left = true;
  bool right = true;
};
struct strip_accents_step {};
struct nmt_step {};
struct prepend_step {
  std::string text;
};
// Replaces `literal`, or every match of `pattern` when there is one.
struct replace_step {
  std::string literal;
  std::optional<regex> pattern;
  std::string content;
};
struct bert_step {
  bool clean_text = true;
  bool space_around_ideographs = true;
  bool strip_accents = true;
  bool lowercase = true;
};
struct charsmap_step {
  charsmap map;
  bool longest = false;  // as SentencePiece does it; else as Hugging Face does
};
struct byte_level_step {};
// SentencePiece's own: no spaces at the ends, no two in a row.
struct collapse_spaces_step {};

using normalizer_step = std::variant<unicode_step, lowercase_step, strip_step, strip_accents_step,
                                     nmt_step, prepend_step, replace_step, bert_step, charsmap_step,
                                     byte_level_step, collapse_spaces_step>;

class normalizer {
 public:
  void add(normalizer_step step);
  bool empty() const { return steps_.empty(); }
  void run(normalized_text& text) const;

 private:
  std::vector<normalizer_step> steps_;
};

}  // namespace tandem::text
