// What both halves of the parser need: the token stream, names, and the bound on nesting.
#pragma once

#include "runtime/text/jinja_ast.hpp"
#include "runtime/text/jinja_lexer.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tandem::text::jinja {

class parser_base {
 protected:
  // Enough for any template that was written by hand, little enough for any thread's stack.
  static constexpr int nesting_max = 150;

  explicit parser_base(std::string_view source) : tokens_(tokenize(source)) {}

  const token& current() const { return tokens_[at_]; }
  const token& look() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const token& take() {
    const token& taken = tokens_[at_];
    if (at_ + 1 < tokens_.size()) ++at_;
    return taken;
  }
  bool skip_op(std::string_view spelling) { return skip_if(current().is_op(spelling)); }
  bool skip_name(std::string_view word) { return skip_if(current().is_name(word)); }
  void expect_op(std::string_view spelling) {
    if (!skip_op(spelling)) unexpected("expected '" + std::string(spelling) + "'");
  }
  std::string expect_name() {
    if (current().kind != token_kind::name) unexpected("expected a name");
    return take().text;
  }
  void expect(token_kind kind) {
    if (current().kind != kind) unexpected("expected " + describe({kind, 0, {}, 0, 0}));
    take();
  }
  [[noreturn]] void unexpected(const std::string& wanted) const {
    refuse_syntax(current().line, wanted + ", got " + describe(current()));
  }

  symbol intern(const std::string& name) {
    auto known = symbols_.try_emplace(name, static_cast<symbol>(names_.size()));
    if (known.second) names_.push_back(name);
    return known.first->second;
  }

  template <class T>
  static std::unique_ptr<T> make(int line) {
    auto node = std::make_unique<T>();
    node->line = line;
    return node;
  }
  // Every expression says how deep it is; refused before anything walks it.
  static void hold(expression& parent, const expression* child) {
    if (child == nullptr) return;
    parent.depth = std::max(parent.depth, child->depth + 1);
    if (parent.depth > 2 * nesting_max)
      refuse_syntax(parent.line, "an expression of more than " + std::to_string(2 * nesting_max) +
                                     " nested operations");
  }

  class deeper {
   public:
    explicit deeper(parser_base& p) : parser_(p) {
      if (++parser_.nesting_ > nesting_max)
        refuse_syntax(parser_.current().line,
                      "nested deeper than " + std::to_string(nesting_max) + " levels");
    }
    ~deeper() { --parser_.nesting_; }
    deeper(const deeper&) = delete;
    deeper& operator=(const deeper&) = delete;

   private:
    parser_base& parser_;
  };

  std::vector<std::string> names_;

 private:
  bool skip_if(bool matches) {
    if (matches) take();
    return matches;
  }

  std::vector<token> tokens_;
  std::size_t at_ = 0;
  int nesting_ = 0;
  std::unordered_map<std::string, symbol> symbols_;
};

}  // namespace tandem::text::jinja
