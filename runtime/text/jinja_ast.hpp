// A compiled template: a tree of expressions that evaluate and statements that print. Built by
// jinja_parser.cpp; what each node does is in jinja_expressions.cpp and jinja_statements.cpp.
#pragma once

#include "runtime/text/jinja_value.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tandem::text::jinja {

using symbol = std::uint32_t;  // an index of program.names

struct expression {
  int line = 0;
  int depth = 1;  // of the tree below: bounded, so that walks and destructors are
  virtual ~expression() = default;
  virtual var evaluate(interpreter& in) const = 0;
};
using expression_ptr = std::unique_ptr<expression>;

enum class flow : std::uint8_t { normal, break_loop, continue_loop };

struct statement {
  int line = 0;
  virtual ~statement() = default;
  virtual flow execute(interpreter& in) const = 0;
};
using statement_ptr = std::unique_ptr<statement>;
using block = std::vector<statement_ptr>;

// --- expressions

struct constant final : expression {
  var held;
  var evaluate(interpreter&) const override { return held; }
};
struct name_load final : expression {
  symbol name = 0;
  var evaluate(interpreter& in) const override;
};
struct sequence_literal final : expression {
  std::vector<expression_ptr> items;
  bool tuple = false;
  var evaluate(interpreter& in) const override;
};
struct dict_literal final : expression {
  std::vector<std::pair<expression_ptr, expression_ptr>> members;
  var evaluate(interpreter& in) const override;
};
struct attribute_of final : expression {  // a.b
  expression_ptr from;
  std::string name;
  var evaluate(interpreter& in) const override;
};
struct item_of final : expression {  // a[b]
  expression_ptr from;
  expression_ptr key;
  var evaluate(interpreter& in) const override;
};
struct slice_of final : expression {  // a[b:c:d]; parts may be null
  expression_ptr from;
  std::array<expression_ptr, 3> parts;
  var evaluate(interpreter& in) const override;
};
struct call_arguments {
  std::vector<expression_ptr> positional;
  std::vector<std::pair<std::string, expression_ptr>> named;
  expression_ptr rest_positional;  // *args
  expression_ptr rest_named;       // **kwargs
  arguments evaluate(interpreter& in) const;
};
struct call_of final : expression {
  expression_ptr function;
  call_arguments args;
  var evaluate(interpreter& in) const override;
};

using filter_function = var (*)(interpreter& in, const var& input, arguments& args);
using test_function = bool (*)(interpreter& in, const var& input, arguments& args);

struct filter_of final : expression {
  expression_ptr input;  // null: the text of the enclosing filter or set block
  std::string name;
  filter_function function = nullptr;  // null: unknown, an error once it is reached
  call_arguments args;
  var evaluate(interpreter& in) const override;
};
struct test_of final : expression {
  expression_ptr input;
  std::string name;
  test_function function = nullptr;
  call_arguments args;
  bool negated = false;
  var evaluate(interpreter& in) const override;
};

enum class unary_op : std::uint8_t { negate, plus, logical_not };
struct unary final : expression {
  unary_op op = unary_op::negate;
  expression_ptr operand;
  var evaluate(interpreter& in) const override;
};
enum class binary_op : std::uint8_t {
  add,
  subtract,
  multiply,
  divide,
  floor_divide,
  modulo,
  power
};
struct binary final : expression {
  binary_op op = binary_op::add;
  expression_ptr left;
  expression_ptr right;
  var evaluate(interpreter& in) const override;
};
struct logical final : expression {
  bool conjunction = false;  // and, else or
  expression_ptr left;
  expression_ptr right;
  var evaluate(interpreter& in) const override;
};
enum class compare_op : std::uint8_t {
  equal,
  not_equal,
  less,
  less_equal,
  greater,
  greater_equal,
  in,
  not_in
};
struct comparison final : expression {  // a < b <= c
  expression_ptr first;
  std::vector<std::pair<compare_op, expression_ptr>> rest;
  var evaluate(interpreter& in) const override;
};
struct concatenation final : expression {  // a ~ b ~ c
  std::vector<expression_ptr> parts;
  var evaluate(interpreter& in) const override;
};
struct conditional final : expression {  // a if b else c
  expression_ptr condition;
  expression_ptr yes;
  expression_ptr no;  // may be null
  var evaluate(interpreter& in) const override;
};

// --- what is assigned to: a name, ns.attribute, or a tuple of such

struct target {
  int line = 0;
  symbol name = 0;
  std::string attribute;      // of the namespace `name`; empty: the name itself
  std::vector<target> parts;  // a tuple; then the rest is unused
  bool tuple = false;
  void assign(interpreter& in, const var& v) const;
};

// --- statements

struct output_text final : statement {
  std::string text;
  flow execute(interpreter& in) const override;
};
struct output_value final : statement {
  expression_ptr shown;
  flow execute(interpreter& in) const override;
};
struct if_statement final : statement {
  struct branch {
    expression_ptr condition;  // null: else
    block body;
  };
  std::vector<branch> branches;
  flow execute(interpreter& in) const override;
};
struct for_statement final : statement {
  target item;
  expression_ptr over;
  expression_ptr condition;  // may be null
  block body;
  block otherwise;
  bool recursive = false;
  flow execute(interpreter& in) const override;
};
struct loop_control final : statement {
  flow kind = flow::break_loop;
  flow execute(interpreter&) const override { return kind; }
};
struct set_statement final : statement {
  target to;
  expression_ptr from;
  flow execute(interpreter& in) const override;
};
struct set_block final : statement {
  target to;
  expression_ptr filter;  // a chain of filter_of whose innermost input is null; may be null
  block body;
  flow execute(interpreter& in) const override;
};
struct with_statement final : statement {
  std::vector<std::pair<target, expression_ptr>> variables;
  block body;
  flow execute(interpreter& in) const override;
};
struct filter_block final : statement {
  expression_ptr filter;
  block body;
  flow execute(interpreter& in) const override;
};
// What a macro and a call block have in common.
struct macro_body {
  struct parameter {
    symbol name = 0;
    std::string text;
    expression_ptr fallback;  // may be null
  };
  std::string name;
  std::vector<parameter> parameters;
  block body;
  bool uses_caller = false;
  bool uses_kwargs = false;
  bool uses_varargs = false;
  symbol caller = 0;
  symbol kwargs = 0;
  symbol varargs = 0;
};
struct macro_statement final : statement {
  symbol name = 0;
  macro_body macro;
  flow execute(interpreter& in) const override;
};
struct call_block final : statement {
  macro_body macro;
  expression_ptr function;
  call_arguments args;
  flow execute(interpreter& in) const override;
};
// A body with variables of its own: `generation`, `block`, `autoescape false`.
struct scoped_block final : statement {
  block body;
  bool sees_template_only = false;  // a `block` does not see the variables around it
  flow execute(interpreter& in) const override;
};
// A tag that needs other templates: an error once it is reached, as in Jinja without a loader.
struct refused_statement final : statement {
  std::string why;
  flow execute(interpreter& in) const override;
};

struct program_tree {
  block body;
  std::vector<std::string> names;
  symbol loop = 0;
};

}  // namespace tandem::text::jinja
