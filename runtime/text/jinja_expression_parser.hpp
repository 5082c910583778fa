#pragma once

#include "runtime/text/jinja_parser_base.hpp"

#include <string>
#include <vector>

namespace tandem::text::jinja {

// The expression half of the parser.
class expression_parser : public parser_base {
 protected:
  using parser_base::parser_base;

  // A filter or test of a name that does not exist. Inside an `if` it is an error only once it is
  // reached, so that a template can ask first.
  struct unknown_name {
    int line = 0;
    std::string what;
  };
  // What the innermost macro bodies read, besides their parameters.
  struct special_names {
    bool caller = false;
    bool kwargs = false;
    bool varargs = false;
  };

  expression_ptr parse_expression(bool with_condition = true);
  // Expressions with commas between them make a tuple; () is one only in parentheses.
  expression_ptr parse_tuple(bool with_condition, bool in_parentheses = false);
  expression_ptr parse_filters(expression_ptr input);  // at "|", or at a filter block's first name
  expression_ptr parse_filter(expression_ptr input);
  expression_ptr parse_primary();
  expression_ptr parse_postfix(expression_ptr from);
  call_arguments parse_arguments(expression& owner);

  bool soft_ = false;  // inside an `if`
  std::vector<unknown_name> unknown_;
  std::vector<special_names> macros_;

 private:
  expression_ptr parse_condition();
  expression_ptr parse_or();
  expression_ptr parse_and();
  expression_ptr parse_not();
  expression_ptr parse_comparison();
  expression_ptr parse_sum();
  expression_ptr parse_concatenation();
  expression_ptr parse_product();
  expression_ptr parse_power();
  expression_ptr parse_unary(bool with_filters);
  expression_ptr parse_filters_and_tests(expression_ptr input);
  expression_ptr parse_test(expression_ptr input);
  expression_ptr parse_call(expression_ptr function);
  expression_ptr parse_subscript(expression_ptr from);
  expression_ptr parse_slice(expression_ptr from, expression_ptr start, int line);
  expression_ptr parse_name();
  expression_ptr parse_strings();
  expression_ptr parse_list();
  expression_ptr parse_dict();
  std::string dotted_name();
  void note_special(const std::string& name);
};

}  // namespace tandem::text::jinja
