// Regular expressions as tokenizer files write them (Oniguruma's dialect), run by PCRE2. Classes
// mean what they mean there: \s is Unicode White_Space, \w letters, marks, digits and connectors.
#pragma once

#include "runtime/result.hpp"
#include "runtime/text/utf8.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::text {

class regex {
 public:
  // Refused with the place and the reason when it is not a pattern we can run exactly.
  static result<regex> compile(std::string_view pattern);

  // Appends every match from left to right, empty ones left out. Work is bounded: a text on which
  // the pattern explodes counts as not matching from there on.
  void find_all(std::string_view text, std::vector<text_range>& out) const;

 private:
  struct program;
  explicit regex(std::shared_ptr<const program> p) : program_(std::move(p)) {}
  std::shared_ptr<const program> program_;
};

// `pattern` written for PCRE2; what the two dialects read differently is spelled out.
result<std::string> translate_regex(std::string_view pattern);

}  // namespace tandem::text
