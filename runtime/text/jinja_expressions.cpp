// What each kind of expression evaluates to.
#include "runtime/text/jinja_library.hpp"
#include "runtime/text/jinja_objects.hpp"

namespace tandem::text::jinja {

var name_load::evaluate(interpreter& in) const { return in.lookup(name); }

var sequence_literal::evaluate(interpreter& in) const {
  std::vector<var> values;
  values.reserve(items.size());
  for (const auto& item : items) values.push_back(in.evaluate(*item));
  in.work.spend(values.size());
  return tuple ? var::tuple(std::move(values)) : var::list(std::move(values));
}

var dict_literal::evaluate(interpreter& in) const {
  auto dict = std::make_shared<dictionary>();
  for (const auto& [key, held] : members) {
    var name = in.evaluate(*key);
    dict->put(in.work, std::move(name), in.evaluate(*held));
  }
  return var(std::shared_ptr<const dictionary>(std::move(dict)));
}

var attribute_of::evaluate(interpreter& in) const {
  return attribute(in, in.evaluate(*from), name);
}

var item_of::evaluate(interpreter& in) const {
  var held = in.evaluate(*from);
  return item(in, held, in.evaluate(*key));
}

var slice_of::evaluate(interpreter& in) const {
  var held = in.evaluate(*from);
  std::array<var, 3> bounds;  // none where nothing is written
  for (std::size_t i = 0; i < 3; ++i)
    if (parts[i]) bounds[i] = in.evaluate(*parts[i]);
  return slice(in, held, bounds[0], bounds[1], bounds[2]);
}

arguments call_arguments::evaluate(interpreter& in) const {
  arguments args;
  for (const auto& argument : positional) args.positional.push_back(in.evaluate(*argument));
  for (const auto& [name, argument] : named) args.named.emplace_back(name, in.evaluate(*argument));
  if (rest_positional)
    for (var& argument : items_of(in, in.evaluate(*rest_positional)))
      args.positional.push_back(std::move(argument));
  if (rest_named) {
    var rest = in.evaluate(*rest_named);
    const auto* dict = rest.if_dict();
    if (dict == nullptr) refuse("TypeError: argument after ** must be a mapping");
    for (const auto& [name, argument] : dict->members()) {
      if (!name.is_string()) refuse("TypeError: keywords must be strings");
      in.work.spend(args.named.size() + 1);
      for (const auto& [earlier, unused] : args.named)
        if (earlier == name.if_string()->bytes())
          refuse("TypeError: got multiple values for keyword argument '" + earlier + "'");
      args.named.emplace_back(name.if_string()->bytes(), argument);
    }
  }
  return args;
}

var call_of::evaluate(interpreter& in) const {
  var called = in.evaluate(*function);
  arguments given = args.evaluate(in);
  in.line = line;
  return call(in, called, given);
}

var filter_of::evaluate(interpreter& in) const {
  var given = input ? in.evaluate(*input) : *in.block_text;
  arguments values = args.evaluate(in);
  if (function == nullptr) refuse("No filter named '" + name + "' found.");
  return function(in, given, values);
}

var test_of::evaluate(interpreter& in) const {
  var given = in.evaluate(*input);
  arguments values = args.evaluate(in);
  if (function == nullptr) refuse("No test named '" + name + "' found.");
  return var(function(in, given, values) != negated);
}

var unary::evaluate(interpreter& in) const {
  var held = in.evaluate(*operand);
  if (op == unary_op::logical_not) return var(!truth(in, held));
  if (held.is_undefined()) refuse("UndefinedError: " + held.why_undefined());
  bool negates = op == unary_op::negate;
  if (const auto* d = held.if_double()) return var(negates ? -*d : *d);
  if (auto i = held.whole())
    return negates ? apply(in, binary_op::subtract, var(std::int64_t{0}), held) : var(*i);
  refuse(std::string("TypeError: bad operand type for unary ") + (negates ? "-" : "+") + ": '" +
         held.type_name() + "'");
}

var binary::evaluate(interpreter& in) const {
  var a = in.evaluate(*left);
  var b = in.evaluate(*right);
  return apply(in, op, a, b);
}

var logical::evaluate(interpreter& in) const {
  var a = in.evaluate(*left);
  return truth(in, a) == conjunction ? in.evaluate(*right) : a;
}

namespace {

bool compare(interpreter& in, compare_op op, const var& a, const var& b) {
  switch (op) {
    case compare_op::equal:
      return equal(in.work, a, b);
    case compare_op::not_equal:
      return !equal(in.work, a, b);
    case compare_op::less:
      return ordered(in.work, order::less, a, b);
    case compare_op::less_equal:
      return ordered(in.work, order::less_equal, a, b);
    case compare_op::greater:
      return ordered(in.work, order::greater, a, b);
    case compare_op::greater_equal:
      return ordered(in.work, order::greater_equal, a, b);
    case compare_op::in:
      return contains(in, b, a);
    default:
      return !contains(in, b, a);
  }
}

}  // namespace

var comparison::evaluate(interpreter& in) const {
  var a = in.evaluate(*first);
  for (const auto& [op, operand] : rest) {
    var b = in.evaluate(*operand);
    if (!compare(in, op, a, b)) return var(false);
    a = std::move(b);
  }
  return var(true);
}

var concatenation::evaluate(interpreter& in) const {
  traced_text out;
  for (const auto& part : parts) {
    traced_text text = to_text(in.work, in.evaluate(*part));
    in.work.spend_bytes(out.size() + text.size());
    out.append(text);
  }
  return var(std::move(out));
}

var conditional::evaluate(interpreter& in) const {
  if (truth(in, in.evaluate(*condition))) return in.evaluate(*yes);
  if (no) return in.evaluate(*no);
  return var::undefined("the inline if-expression on line " + std::to_string(line) +
                        " evaluated to false and no else section was defined.");
}

}  // namespace tandem::text::jinja
