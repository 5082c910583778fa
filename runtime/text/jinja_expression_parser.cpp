#include "runtime/text/jinja_expression_parser.hpp"

#include "runtime/text/jinja_library.hpp"

#include <array>

namespace tandem::text::jinja {

expression_ptr expression_parser::parse_expression(bool with_condition) {
  deeper inside(*this);
  return with_condition ? parse_condition() : parse_or();
}

expression_ptr expression_parser::parse_condition() {
  std::size_t unknown_before = unknown_.size();
  int line = current().line;
  auto result = parse_or();
  while (skip_name("if")) {
    auto node = make<conditional>(line);
    node->yes = std::move(result);
    node->condition = parse_or();
    if (skip_name("else")) {
      deeper inside(*this);
      node->no = parse_condition();
    }
    hold(*node, node->yes.get());
    hold(*node, node->condition.get());
    hold(*node, node->no.get());
    result = std::move(node);
    unknown_.resize(unknown_before);
    line = current().line;
  }
  return result;
}

expression_ptr expression_parser::parse_or() {
  int line = current().line;
  auto left = parse_and();
  while (skip_name("or")) {
    auto node = make<logical>(line);
    node->left = std::move(left);
    node->right = parse_and();
    hold(*node, node->left.get());
    hold(*node, node->right.get());
    left = std::move(node);
  }
  return left;
}

expression_ptr expression_parser::parse_and() {
  int line = current().line;
  auto left = parse_not();
  while (skip_name("and")) {
    auto node = make<logical>(line);
    node->conjunction = true;
    node->left = std::move(left);
    node->right = parse_not();
    hold(*node, node->left.get());
    hold(*node, node->right.get());
    left = std::move(node);
  }
  return left;
}

expression_ptr expression_parser::parse_not() {
  if (!current().is_name("not")) return parse_comparison();
  deeper inside(*this);
  auto node = make<unary>(take().line);
  node->op = unary_op::logical_not;
  node->operand = parse_not();
  hold(*node, node->operand.get());
  return node;
}

expression_ptr expression_parser::parse_comparison() {
  struct spelled {
    std::string_view text;
    compare_op op;
  };
  constexpr std::array<spelled, 6> operators = {{{"==", compare_op::equal},
                                                 {"!=", compare_op::not_equal},
                                                 {"<", compare_op::less},
                                                 {"<=", compare_op::less_equal},
                                                 {">", compare_op::greater},
                                                 {">=", compare_op::greater_equal}}};
  int line = current().line;
  auto first = parse_sum();
  auto node = make<comparison>(line);
  for (;;) {
    bool found = false;
    compare_op op{};
    for (const spelled& candidate : operators) {
      if (!current().is_op(candidate.text)) continue;
      take();
      op = candidate.op;
      found = true;
      break;
    }
    if (!found && skip_name("in")) {
      op = compare_op::in;
      found = true;
    } else if (!found && current().is_name("not") && look().is_name("in")) {
      take();
      take();
      op = compare_op::not_in;
      found = true;
    }
    if (!found) break;
    node->rest.emplace_back(op, parse_sum());
    hold(*node, node->rest.back().second.get());
  }
  if (node->rest.empty()) return first;
  node->first = std::move(first);
  hold(*node, node->first.get());
  return node;
}

namespace {

std::unique_ptr<binary> binary_node(int line, binary_op op, expression_ptr left) {
  auto node = std::make_unique<binary>();
  node->line = line;
  node->op = op;
  node->left = std::move(left);
  return node;
}

}  // namespace

expression_ptr expression_parser::parse_sum() {
  auto left = parse_concatenation();
  while (current().is_op("+") || current().is_op("-")) {
    const token& op = take();
    auto node =
        binary_node(op.line, op.is_op("+") ? binary_op::add : binary_op::subtract, std::move(left));
    node->right = parse_concatenation();
    hold(*node, node->left.get());
    hold(*node, node->right.get());
    left = std::move(node);
  }
  return left;
}

expression_ptr expression_parser::parse_concatenation() {
  int line = current().line;
  auto first = parse_product();
  if (!current().is_op("~")) return first;
  auto node = make<concatenation>(line);
  hold(*node, first.get());
  node->parts.push_back(std::move(first));
  while (skip_op("~")) {
    node->parts.push_back(parse_product());
    hold(*node, node->parts.back().get());
  }
  return node;
}

expression_ptr expression_parser::parse_product() {
  auto left = parse_power();
  for (;;) {
    binary_op op{};
    if (current().is_op("*"))
      op = binary_op::multiply;
    else if (current().is_op("/"))
      op = binary_op::divide;
    else if (current().is_op("//"))
      op = binary_op::floor_divide;
    else if (current().is_op("%"))
      op = binary_op::modulo;
    else
      return left;
    auto node = binary_node(take().line, op, std::move(left));
    node->right = parse_power();
    hold(*node, node->left.get());
    hold(*node, node->right.get());
    left = std::move(node);
  }
}

expression_ptr expression_parser::parse_power() {
  auto left = parse_unary(true);
  while (current().is_op("**")) {
    auto node = binary_node(take().line, binary_op::power, std::move(left));
    node->right = parse_unary(true);
    hold(*node, node->left.get());
    hold(*node, node->right.get());
    left = std::move(node);
  }
  return left;
}

expression_ptr expression_parser::parse_unary(bool with_filters) {
  deeper inside(*this);
  expression_ptr result;
  if (current().is_op("-") || current().is_op("+")) {
    const token& op = take();
    auto node = make<unary>(op.line);
    node->op = op.is_op("-") ? unary_op::negate : unary_op::plus;
    node->operand = parse_unary(false);
    hold(*node, node->operand.get());
    result = std::move(node);
  } else {
    result = parse_primary();
  }
  result = parse_postfix(std::move(result));
  return with_filters ? parse_filters_and_tests(std::move(result)) : std::move(result);
}

expression_ptr expression_parser::parse_primary() {
  const token& t = current();
  switch (t.kind) {
    case token_kind::name:
      return parse_name();
    case token_kind::string:
      return parse_strings();
    case token_kind::integer: {
      auto node = make<constant>(t.line);
      node->held = var(take().integer);
      return node;
    }
    case token_kind::real: {
      auto node = make<constant>(t.line);
      node->held = var(take().real);
      return node;
    }
    default:
      break;
  }
  if (skip_op("(")) {
    auto inner = parse_tuple(true, true);
    expect_op(")");
    return inner;
  }
  if (t.is_op("[")) return parse_list();
  if (t.is_op("{")) return parse_dict();
  refuse_syntax(t.line, "unexpected " + describe(t));
}

expression_ptr expression_parser::parse_name() {
  int line = current().line;
  std::string name = take().text;
  auto word = make<constant>(line);
  if (name == "true" || name == "True")
    word->held = var(true);
  else if (name == "false" || name == "False")
    word->held = var(false);
  else if (name != "none" && name != "None") {
    note_special(name);
    auto load = make<name_load>(line);
    load->name = intern(name);
    return load;
  }
  return word;
}

void expression_parser::note_special(const std::string& name) {
  for (special_names& used : macros_) {
    used.caller = used.caller || name == "caller";
    used.kwargs = used.kwargs || name == "kwargs";
    used.varargs = used.varargs || name == "varargs";
  }
}

expression_ptr expression_parser::parse_strings() {
  auto node = make<constant>(current().line);
  std::string text;
  while (current().kind == token_kind::string) text += take().text;
  node->held = var::literal(text);
  return node;
}

expression_ptr expression_parser::parse_tuple(bool with_condition, bool in_parentheses) {
  auto tuple = make<sequence_literal>(current().line);
  tuple->tuple = true;
  auto at_end = [&] {
    return current().kind == token_kind::variable_end || current().kind == token_kind::block_end ||
           current().is_op(")");
  };
  bool comma = false;
  while (!at_end()) {
    tuple->items.push_back(parse_expression(with_condition));
    hold(*tuple, tuple->items.back().get());
    if (!skip_op(",")) break;
    comma = true;
  }
  if (comma) return tuple;
  if (!tuple->items.empty()) return std::move(tuple->items.front());
  if (!in_parentheses) unexpected("Expected an expression");
  return tuple;
}

expression_ptr expression_parser::parse_list() {
  auto list = make<sequence_literal>(current().line);
  expect_op("[");
  while (!current().is_op("]")) {
    list->items.push_back(parse_expression());
    hold(*list, list->items.back().get());
    if (!skip_op(",")) break;
  }
  expect_op("]");
  return list;
}

expression_ptr expression_parser::parse_dict() {
  auto dict = make<dict_literal>(current().line);
  expect_op("{");
  while (!current().is_op("}")) {
    auto key = parse_expression();
    expect_op(":");
    auto held = parse_expression();
    hold(*dict, key.get());
    hold(*dict, held.get());
    dict->members.emplace_back(std::move(key), std::move(held));
    if (!skip_op(",")) break;
  }
  expect_op("}");
  return dict;
}

expression_ptr expression_parser::parse_postfix(expression_ptr from) {
  for (;;) {
    if (current().is_op(".") || current().is_op("["))
      from = parse_subscript(std::move(from));
    else if (current().is_op("("))
      from = parse_call(std::move(from));
    else
      return from;
  }
}

expression_ptr expression_parser::parse_filters_and_tests(expression_ptr input) {
  for (;;) {
    if (current().is_op("|"))
      input = parse_filters(std::move(input));
    else if (current().is_name("is"))
      input = parse_test(std::move(input));
    else if (current().is_op("("))
      input = parse_call(std::move(input));
    else
      return input;
  }
}

expression_ptr expression_parser::parse_subscript(expression_ptr from) {
  int line = current().line;
  if (skip_op(".")) {
    if (current().kind == token_kind::name) {
      auto node = make<attribute_of>(line);
      node->name = take().text;
      node->from = std::move(from);
      hold(*node, node->from.get());
      return node;
    }
    if (current().kind != token_kind::integer) unexpected("expected name or number");
    auto key = make<constant>(line);
    key->held = var(take().integer);
    auto node = make<item_of>(line);
    node->from = std::move(from);
    node->key = std::move(key);
    hold(*node, node->from.get());
    return node;
  }
  expect_op("[");
  if (current().is_op(":")) return parse_slice(std::move(from), nullptr, line);
  if (current().is_op("]")) {  // a[] is a[()]
    take();
    auto node = make<item_of>(line);
    auto key = make<sequence_literal>(line);
    key->tuple = true;
    node->from = std::move(from);
    node->key = std::move(key);
    hold(*node, node->from.get());
    return node;
  }
  auto key = parse_expression();
  if (current().is_op(":")) return parse_slice(std::move(from), std::move(key), line);
  auto node = make<item_of>(line);
  if (current().is_op(",")) {
    auto keys = make<sequence_literal>(line);
    keys->tuple = true;
    hold(*keys, key.get());
    keys->items.push_back(std::move(key));
    while (skip_op(",")) {
      keys->items.push_back(parse_expression());
      hold(*keys, keys->items.back().get());
    }
    key = std::move(keys);
  }
  expect_op("]");
  node->from = std::move(from);
  node->key = std::move(key);
  hold(*node, node->from.get());
  hold(*node, node->key.get());
  return node;
}

expression_ptr expression_parser::parse_slice(expression_ptr from, expression_ptr start, int line) {
  auto node = make<slice_of>(line);
  node->from = std::move(from);
  node->parts[0] = std::move(start);
  for (std::size_t part = 1; part < 3 && skip_op(":"); ++part)
    if (!current().is_op(":") && !current().is_op("]")) node->parts[part] = parse_expression();
  expect_op("]");
  hold(*node, node->from.get());
  for (const auto& part : node->parts) hold(*node, part.get());
  return node;
}

expression_ptr expression_parser::parse_call(expression_ptr function) {
  auto node = make<call_of>(current().line);
  node->args = parse_arguments(*node);
  node->function = std::move(function);
  hold(*node, node->function.get());
  return node;
}

call_arguments expression_parser::parse_arguments(expression& owner) {
  call_arguments args;
  int line = current().line;
  auto in_order = [&](bool good) {
    if (!good) refuse_syntax(line, "invalid syntax for function call expression");
  };
  expect_op("(");
  while (!current().is_op(")")) {
    if (skip_op("*")) {
      in_order(!args.rest_positional && !args.rest_named);
      args.rest_positional = parse_expression();
      hold(owner, args.rest_positional.get());
    } else if (skip_op("**")) {
      in_order(!args.rest_named);
      args.rest_named = parse_expression();
      hold(owner, args.rest_named.get());
    } else if (current().kind == token_kind::name && look().is_op("=")) {
      in_order(!args.rest_named);
      std::string name = take().text;
      take();
      for (const auto& [earlier, unused] : args.named)
        if (earlier == name) refuse_syntax(line, "keyword argument repeated: " + name);
      args.named.emplace_back(std::move(name), parse_expression());
      hold(owner, args.named.back().second.get());
    } else {
      in_order(!args.rest_positional && !args.rest_named && args.named.empty());
      args.positional.push_back(parse_expression());
      hold(owner, args.positional.back().get());
    }
    if (!skip_op(",")) break;
  }
  expect_op(")");
  return args;
}

std::string expression_parser::dotted_name() {
  std::string name = expect_name();
  while (skip_op(".")) name += "." + expect_name();
  return name;
}

expression_ptr expression_parser::parse_filters(expression_ptr input) {
  while (skip_op("|")) input = parse_filter(std::move(input));
  return input;
}

expression_ptr expression_parser::parse_filter(expression_ptr input) {
  auto node = make<filter_of>(current().line);
  node->name = dotted_name();
  node->function = find_filter(node->name);
  if (node->function == nullptr && !soft_)
    unknown_.push_back({node->line, "No filter named '" + node->name + "'."});
  node->input = std::move(input);
  hold(*node, node->input.get());
  if (current().is_op("(")) node->args = parse_arguments(*node);
  return node;
}

expression_ptr expression_parser::parse_test(expression_ptr input) {
  auto node = make<test_of>(take().line);
  node->negated = skip_name("not");
  node->name = dotted_name();
  node->function = find_test(node->name);
  if (node->function == nullptr && !soft_)
    unknown_.push_back({node->line, "No test named '" + node->name + "'."});
  node->input = std::move(input);
  hold(*node, node->input.get());
  const token& t = current();
  bool literal = t.kind == token_kind::string || t.kind == token_kind::integer ||
                 t.kind == token_kind::real || t.is_op("[") || t.is_op("{");
  bool name = t.kind == token_kind::name && t.text != "else" && t.text != "or" && t.text != "and";
  if (t.is_op("(")) {
    node->args = parse_arguments(*node);
  } else if (literal || name) {
    if (t.is_name("is")) refuse_syntax(t.line, "You cannot chain multiple tests with is");
    node->args.positional.push_back(parse_postfix(parse_primary()));
    hold(*node, node->args.positional.back().get());
  }
  return node;
}

}  // namespace tandem::text::jinja
