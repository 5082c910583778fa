// A template's source as tokens, with trim_blocks and lstrip_blocks on, as transformers reads it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::text::jinja {

enum class token_kind : std::uint8_t {
  data,            // text outside of tags
  variable_begin,  // {{
  variable_end,
  block_begin,  // {%
  block_end,
  name,
  string,  // already unescaped
  integer,
  real,
  op,  // an operator or bracket; its spelling is the text
  end,
};

struct token {
  token_kind kind = token_kind::end;
  int line = 1;
  std::string text;
  std::int64_t integer = 0;
  double real = 0;

  bool is_name(std::string_view word) const { return kind == token_kind::name && text == word; }
  bool is_op(std::string_view spelling) const { return kind == token_kind::op && text == spelling; }
};

// Refuses (throws `refusal`) what is no template, naming the line.
std::vector<token> tokenize(std::string_view source);
[[noreturn]] void refuse_syntax(int line, const std::string& what);
std::string describe(const token& t);

}  // namespace tandem::text::jinja
