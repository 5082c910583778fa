// What each kind of statement does, and the interpreter's variables and output.
#include "runtime/text/jinja_library.hpp"
#include "runtime/text/jinja_objects.hpp"

namespace tandem::text::jinja {

// --- the interpreter

void scope::set(symbol name, var v) {
  for (auto& [known, held] : variables) {
    if (known != name) continue;
    held = std::move(v);
    return;
  }
  variables.emplace_back(name, std::move(v));
}

interpreter::~interpreter() {
  for (const auto& weak : made_)
    if (auto made = weak.lock()) made->clear();
  for (const auto& weak : kept_)
    if (auto kept = weak.lock()) kept->variables.clear();
}

void interpreter::keep(const std::shared_ptr<scope>& kept) {
  work.spend(8);
  kept_.push_back(kept);
}

void interpreter::too_nested() {
  refuse("RecursionError: more than " + std::to_string(nesting_max) +
         " evaluations inside one another");
}

interpreter::in_scope::in_scope(interpreter& in, std::shared_ptr<scope> inner)
    : in_(in), saved_(std::exchange(in.scope_, std::move(inner))) {}

interpreter::in_call::in_call(interpreter& in) : in_(in) {
  if (in_.calls_ >= calls_max)
    refuse("RecursionError: more than " + std::to_string(calls_max) + " calls inside one another");
  ++in_.calls_;
}

var interpreter::lookup(symbol name) const {
  for (const scope* s = scope_.get(); s != nullptr; s = s->outer.get())
    for (const auto& [known, held] : s->variables)
      if (known == name) return held;
  const std::string& text = program_.names[name];
  if (auto global = find_global(text)) return std::move(*global);
  return var::undefined("'" + text + "' is undefined");
}

void interpreter::print(const traced_text& text) {
  work.spend(1 + text.size() / 16);
  if (output_->size() + text.size() > meter::text_bytes_max)
    work.spend_bytes(output_->size() + text.size());
  output_->append(text);
}

void interpreter::print(std::string_view text) {
  work.spend(1 + text.size() / 16);
  if (output_->size() + text.size() > meter::text_bytes_max)
    work.spend_bytes(output_->size() + text.size());
  output_->append(text, true);
}

flow interpreter::run(const block& body) {
  nested inside(*this);
  for (const auto& s : body) {
    line = s->line;
    work.spend(1);
    flow next = s->execute(*this);
    if (next != flow::normal) return next;
  }
  return flow::normal;
}

flow interpreter::capture(const block& body, traced_text& printed) {
  in_scope variables(*this, inner_scope());
  in_buffer buffer(*this);
  flow next = run(body);
  printed = std::move(buffer.text);
  return next;
}

// --- assignment

namespace {

namespace_object* as_namespace(const var& v) {
  return dynamic_cast<namespace_object*>(v.if_object());
}

}  // namespace

void target::assign(interpreter& in, const var& v) const {
  if (tuple) {
    std::vector<var> items = items_of(in, v);
    if (items.size() != parts.size())
      refuse("ValueError: " + std::to_string(items.size()) + " values to unpack, expected " +
             std::to_string(parts.size()));
    for (std::size_t i = 0; i < parts.size(); ++i) parts[i].assign(in, items[i]);
  } else if (attribute.empty()) {
    in.set(name, v);
  } else {
    var held = in.lookup(name);
    auto* space = as_namespace(held);
    if (space == nullptr) refuse("cannot assign attribute on non-namespace object");
    space->set(in, attribute, v);
  }
}

// --- statements

flow output_text::execute(interpreter& in) const {
  in.print(std::string_view(text));
  return flow::normal;
}

flow output_value::execute(interpreter& in) const {
  var v = in.evaluate(*shown);
  if (const auto* direct = v.if_string())
    in.print(*direct);
  else
    in.print(to_text(in.work, v));
  return flow::normal;
}

flow if_statement::execute(interpreter& in) const {
  for (const auto& [condition, body] : branches)
    if (!condition || truth(in, in.evaluate(*condition))) return in.run(body);
  return flow::normal;
}

namespace {

// One run over `over`: a whole loop, or one level of a recursive one.
flow run_loop(const for_statement& loop, interpreter& in, const var& over, int depth0) {
  auto outer = in.current_scope();
  var items = over;
  if (loop.condition) {
    auto all = std::shared_ptr<cursor>(iterate(in, over));
    items = make_generator(
        in, "generator",
        [&loop, &in, all, outer]() -> std::optional<var> {
          while (auto next = all->next()) {
            interpreter::in_scope variables(in, std::make_shared<scope>(scope{outer, {}}));
            loop.item.assign(in, *next);
            if (truth(in, in.evaluate(*loop.condition))) return next;
          }
          return std::nullopt;
        },
        over.depth());
  }
  auto state = in.make<loop_object>(items, iterate(in, items), depth0);
  if (loop.recursive) {
    state->recurse_with([&loop, outer](interpreter& now, const var& inner, int depth) {
      interpreter::in_call counted(now);
      interpreter::nested inside(now);
      interpreter::in_scope variables(now, outer);
      interpreter::in_buffer printed(now);
      run_loop(loop, now, inner, depth);
      return var(std::move(printed.text));
    });
  }
  bool ran = false;
  while (auto next = state->advance()) {
    ran = true;
    in.work.spend(4);
    interpreter::in_scope variables(in, std::make_shared<scope>(scope{outer, {}}));
    in.set(in.program().loop, var(std::shared_ptr<object>(state)));
    loop.item.assign(in, *next);
    if (in.run(loop.body) == flow::break_loop) return flow::normal;
  }
  if (ran || loop.otherwise.empty()) return flow::normal;
  interpreter::in_scope variables(in, in.inner_scope());
  return in.run(loop.otherwise);
}

}  // namespace

flow for_statement::execute(interpreter& in) const {
  return run_loop(*this, in, in.evaluate(*over), 0);
}

flow set_statement::execute(interpreter& in) const {
  to.assign(in, in.evaluate(*from));
  return flow::normal;
}

namespace {

// What `filter` (null: nothing) makes of the text.
var filtered(interpreter& in, const expression* filter, traced_text text) {
  var given(std::move(text));
  if (filter == nullptr) return given;
  const var* saved = std::exchange(in.block_text, &given);
  var result = in.evaluate(*filter);
  in.block_text = saved;
  return result;
}

}  // namespace

flow set_block::execute(interpreter& in) const {
  traced_text printed;
  if (flow next = in.capture(body, printed); next != flow::normal) return next;
  to.assign(in, filtered(in, filter.get(), std::move(printed)));
  return flow::normal;
}

flow with_statement::execute(interpreter& in) const {
  std::vector<var> values;  // none sees the others
  for (const auto& [to, from] : variables) values.push_back(in.evaluate(*from));
  interpreter::in_scope inner(in, in.inner_scope());
  for (std::size_t i = 0; i < values.size(); ++i) variables[i].first.assign(in, values[i]);
  return in.run(body);
}

flow filter_block::execute(interpreter& in) const {
  traced_text printed;
  if (flow next = in.capture(body, printed); next != flow::normal) return next;
  in.print(to_text(in.work, filtered(in, filter.get(), std::move(printed))));
  return flow::normal;
}

namespace {

var make_macro(interpreter& in, const macro_body& macro) {
  in.keep(in.current_scope());
  return var(std::shared_ptr<object>(std::make_shared<macro_object>(macro, in.current_scope())));
}

}  // namespace

flow macro_statement::execute(interpreter& in) const {
  in.set(name, make_macro(in, macro));
  return flow::normal;
}

flow call_block::execute(interpreter& in) const {
  var caller = make_macro(in, macro);
  var called = in.evaluate(*function);
  arguments given = args.evaluate(in);
  given.named.emplace_back("caller", std::move(caller));
  in.line = line;
  in.print(to_text(in.work, call(in, called, given)));
  return flow::normal;
}

flow scoped_block::execute(interpreter& in) const {
  auto outer = sees_template_only ? in.template_scope() : in.current_scope();
  interpreter::in_scope inner(in, std::make_shared<scope>(scope{outer, {}}));
  return in.run(body);
}

flow refused_statement::execute(interpreter&) const { refuse(why); }

}  // namespace tandem::text::jinja
