#include "runtime/text/jinja_objects.hpp"

#include "runtime/text/jinja_library.hpp"

#include <algorithm>

namespace tandem::text::jinja {
namespace {

// A pass over something with places.
class indexed_cursor final : public cursor {
 public:
  indexed_cursor(meter& m, std::shared_ptr<const object> owner, std::size_t count,
                 std::function<var(std::size_t)> at)
      : meter_(m), owner_(std::move(owner)), count_(count), at_(std::move(at)) {}
  std::optional<var> next() override {
    if (index_ >= count_) return std::nullopt;
    meter_.spend(2);
    return at_(index_++);
  }

 private:
  meter& meter_;
  std::shared_ptr<const object> owner_;
  std::size_t count_;
  std::function<var(std::size_t)> at_;
  std::size_t index_ = 0;
};

int bounded(int depth) {
  if (depth > meter::nesting_max) refuse("values nested too deep");
  return depth;
}

}  // namespace

var make_function(std::string name, native_function::body run, int depth) {
  return var(std::shared_ptr<object>(
      std::make_shared<native_function>(std::move(name), std::move(run), bounded(depth))));
}

var make_generator(interpreter& in, const char* type, generator::step next, int depth) {
  in.work.spend(8);
  return var(std::shared_ptr<object>(std::make_shared<generator>(type, std::move(next), depth)));
}

// --- generator

generator::generator(const char* type, step next, int depth)
    : type_(type), next_(std::move(next)), depth_(bounded(depth + 1)) {}

std::optional<var> generator::next() {
  if (ended_) return std::nullopt;
  auto made = next_();
  ended_ = !made;
  return made;
}

std::unique_ptr<cursor> generator::iterate(interpreter&) {
  class pass final : public cursor {
   public:
    explicit pass(std::shared_ptr<generator> from) : from_(std::move(from)) {}
    std::optional<var> next() override { return from_->next(); }

   private:
    std::shared_ptr<generator> from_;
  };
  return std::make_unique<pass>(std::static_pointer_cast<generator>(shared_from_this()));
}

// --- dict_view

const char* dict_view::type_name() const {
  return kind_ == kind::keys ? "dict_keys" : kind_ == kind::values ? "dict_values" : "dict_items";
}

var dict_view::at(std::size_t i) const {
  const auto& [key, held] = dict_.if_dict()->members()[i];
  if (kind_ == kind::keys) return key;
  return kind_ == kind::values ? held : var::tuple({key, held});
}

traced_text dict_view::repr(meter& m, int depth) const {
  std::vector<var> items;
  m.spend(2 * count());
  for (std::size_t i = 0; i < count(); ++i) items.push_back(at(i));
  traced_text out(std::string(type_name()) + "(", true);
  out.append(to_repr(m, var::list(std::move(items)), depth));
  out.append(")", true);
  return out;
}

std::unique_ptr<cursor> dict_view::iterate(interpreter& in) {
  return std::make_unique<indexed_cursor>(in.work, shared_from_this(), count(),
                                          [this](std::size_t i) { return at(i); });
}

// --- range

range_object::range_object(std::int64_t start, std::int64_t stop, std::int64_t step)
    : start_(start), stop_(stop), step_(step) {
  constexpr std::size_t count_max = 100'000;  // as Jinja's sandbox has it
  if (step == 0) refuse("ValueError: range() arg 3 must not be zero");
  long double distance = static_cast<long double>(stop) - static_cast<long double>(start);
  long double steps = distance / static_cast<long double>(step);
  if (steps > count_max)
    refuse("OverflowError: Range too big. The sandbox blocks ranges larger than " +
           std::to_string(count_max) + ".");
  while (step > 0 ? at(count_) < stop : at(count_) > stop) ++count_;
}

std::shared_ptr<object> range_object::part(std::int64_t start, std::int64_t stop,
                                           std::int64_t step) const {
  std::int64_t stride = 0;
  if (__builtin_mul_overflow(step_, step, &stride)) refuse("a whole number does not fit 64 bits");
  return std::make_shared<range_object>(start_ + start * step_, start_ + stop * step_, stride);
}

traced_text range_object::repr(meter&, int) const {
  std::string out = "range(" + std::to_string(start_) + ", " + std::to_string(stop_);
  if (step_ != 1) out += ", " + std::to_string(step_);
  return {out + ")", true};
}

std::optional<var> range_object::attribute(interpreter& in, std::string_view name) {
  if (name == "start") return var(start_);
  if (name == "stop") return var(stop_);
  if (name == "step") return var(step_);
  if (name != "index" && name != "count") return std::nullopt;
  // As a tuple of the same numbers answers.
  return find_method(var::tuple(items_of(in, var(shared_from_this()))), name);
}

std::optional<var> range_object::item(interpreter&, const var& key) {
  auto index = key.whole();
  if (!index) return std::nullopt;
  std::int64_t i = *index < 0 ? *index + static_cast<std::int64_t>(count_) : *index;
  if (i < 0 || i >= static_cast<std::int64_t>(count_)) return std::nullopt;
  return var(at(static_cast<std::size_t>(i)));
}

std::unique_ptr<cursor> range_object::iterate(interpreter& in) {
  return std::make_unique<indexed_cursor>(in.work, shared_from_this(), count_,
                                          [this](std::size_t i) { return var(at(i)); });
}

// --- namespace

traced_text namespace_object::repr(meter& m, int depth) const {
  traced_text out("<Namespace {", true);
  bool first = true;
  for (const auto& [key, held] : members_.members()) {
    if (!first) out.append(", ", true);
    first = false;
    out.append(to_repr(m, key, depth));
    out.append(": ", true);
    out.append(to_repr(m, held, depth));
    m.spend_bytes(out.size());
  }
  out.append("}>", true);
  return out;
}

std::optional<var> namespace_object::attribute(interpreter&, std::string_view name) {
  if (const var* held = members_.find(name)) return *held;
  return std::nullopt;
}

void namespace_object::set(interpreter& in, const std::string& name, var v) {
  if (!name.empty() && name[0] == '_')
    refuse(
        "SecurityError: Chat templates cannot store underscore-prefixed attributes on a "
        "namespace, but got '" +
        name + "'.");
  members_.put(in.work, var::literal(name), std::move(v));
}

// --- cycler and joiner

std::optional<var> cycler_object::attribute(interpreter&, std::string_view name) {
  const auto& items = *items_.if_tuple();
  if (name == "current") return items[at_];
  if (name == "next")
    return make_function(
        "next",
        [self = shared_from_this(), this](interpreter&, arguments&) {
          const auto& all = *items_.if_tuple();
          std::size_t now = at_;
          at_ = (at_ + 1) % all.size();
          return all[now];
        },
        depth() + 1);
  if (name == "reset")
    return make_function(
        "reset",
        [self = shared_from_this(), this](interpreter&, arguments&) {
          at_ = 0;
          return var();
        },
        depth() + 1);
  return std::nullopt;
}

var joiner_object::call(interpreter&, arguments&) {
  return std::exchange(used_, true) ? separator_ : var::literal("");
}

// --- macro

traced_text macro_object::repr(meter&, int) const {
  return {"<Macro " + string_repr(macro_.name) + ">", true};
}

std::optional<var> macro_object::attribute(interpreter&, std::string_view name) {
  if (name == "name") return var::literal(macro_.name);
  if (name == "catch_kwargs") return var(macro_.uses_kwargs);
  if (name == "catch_varargs") return var(macro_.uses_varargs);
  if (name == "caller") return var(macro_.uses_caller);
  if (name != "arguments") return std::nullopt;
  std::vector<var> names;
  for (const auto& p : macro_.parameters) names.push_back(var::literal(p.text));
  return var::tuple(std::move(names));
}

var macro_object::call(interpreter& in, arguments& args) {
  interpreter::in_call counted(in);
  interpreter::nested inside(in);
  in.work.spend(4);
  interpreter::in_scope variables(in, std::make_shared<scope>(scope{made_in_, {}}));
  interpreter::in_buffer printed(in);
  bind(in, args, *in.current_scope());
  in.run(macro_.body);
  return var(std::move(printed.text));
}

void macro_object::bind(interpreter& in, arguments& args, scope& to) const {
  auto take_named = [&](std::string_view name) {
    std::optional<var> taken;
    auto at = std::find_if(args.named.begin(), args.named.end(),
                           [&](const auto& named) { return named.first == name; });
    if (at == args.named.end()) return taken;
    taken.emplace(std::move(at->second));
    args.named.erase(at);
    return taken;
  };
  const auto& wanted = macro_.parameters;
  std::size_t positional = std::min(args.positional.size(), wanted.size());
  std::vector<std::optional<var>> given(wanted.size());
  bool found_caller = positional == wanted.size();
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    given[i] = i < positional ? std::optional(args.positional[i]) : take_named(wanted[i].text);
    found_caller = found_caller && wanted[i].name != macro_.caller;
  }
  bool own_caller = std::any_of(wanted.begin(), wanted.end(),
                                [&](const auto& p) { return p.name == macro_.caller; });
  std::optional<var> caller;
  if (macro_.uses_caller && !own_caller)
    caller = take_named("caller").value_or(var::undefined("No caller defined"));
  if (!macro_.uses_kwargs && !args.named.empty())
    refuse("TypeError: macro '" + macro_.name + "' takes no keyword argument '" +
           args.named.front().first + "'");
  if (!macro_.uses_varargs && args.positional.size() > wanted.size())
    refuse("TypeError: macro '" + macro_.name + "' takes not more than " +
           std::to_string(wanted.size()) + " argument(s)");
  if (caller) to.set(macro_.caller, std::move(*caller));
  if (macro_.uses_kwargs) {
    auto rest = std::make_shared<dictionary>();
    for (auto& [name, v] : args.named) rest->put(in.work, var::literal(name), std::move(v));
    to.set(macro_.kwargs, var(std::shared_ptr<const dictionary>(std::move(rest))));
  }
  if (macro_.uses_varargs)
    to.set(macro_.varargs,
           var::tuple({args.positional.begin() + static_cast<std::ptrdiff_t>(positional),
                       args.positional.end()}));
  for (std::size_t i = 0; i < wanted.size(); ++i)  // a default may use the parameters before it
    if (given[i]) to.set(wanted[i].name, *given[i]);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (given[i]) continue;
    var fallback = wanted[i].fallback
                       ? in.evaluate(*wanted[i].fallback)
                       : var::undefined("parameter '" + wanted[i].text + "' was not provided");
    to.set(wanted[i].name, std::move(fallback));
  }
}

}  // namespace tandem::text::jinja
