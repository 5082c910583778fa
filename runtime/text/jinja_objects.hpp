// The objects a template meets: functions, macros, loops, namespaces, ranges, and passes over data
// that are made as they are asked for.
#pragma once

#include "runtime/text/jinja_interpreter.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::text::jinja {

// A function or a bound method.
class native_function final : public object {
 public:
  using body = std::function<var(interpreter&, arguments&)>;
  native_function(std::string name, body run, int depth = 1)
      : name_(std::move(name)), run_(std::move(run)), depth_(depth) {}
  const char* type_name() const override { return "function"; }
  traced_text repr(meter&, int) const override { return {"<function " + name_ + ">", true}; }
  bool callable() const override { return true; }
  var call(interpreter& in, arguments& args) override { return run_(in, args); }
  int depth() const override { return depth_; }

 private:
  std::string name_;
  body run_;
  int depth_;  // of what it is bound to
};

// What `map`, `select`, `reverse`, ... give: each item is made when asked for, once.
class generator final : public object {
 public:
  using step = std::function<std::optional<var>()>;
  // `depth`: of what the steps hold.
  generator(const char* type, step next, int depth);
  const char* type_name() const override { return type_; }
  std::unique_ptr<cursor> iterate(interpreter& in) override;
  int depth() const override { return depth_; }
  std::optional<var> next();

 private:
  const char* type_;
  step next_;
  int depth_;
  bool ended_ = false;
};

// keys(), values() and items() of a dict.
class dict_view final : public object {
 public:
  enum class kind { keys, values, items };
  dict_view(var dict, kind k) : dict_(std::move(dict)), kind_(k) {}
  const char* type_name() const override;
  traced_text repr(meter& m, int depth) const override;
  std::unique_ptr<cursor> iterate(interpreter& in) override;
  std::optional<std::size_t> length(interpreter&) override {
    return dict_.if_dict()->members().size();
  }
  int depth() const override { return dict_.depth() + 1; }
  var at(std::size_t i) const;
  std::size_t count() const { return dict_.if_dict()->members().size(); }

 private:
  var dict_;
  kind kind_;
};

class range_object final : public object {
 public:
  range_object(std::int64_t start, std::int64_t stop, std::int64_t step);
  const char* type_name() const override { return "range"; }
  traced_text repr(meter& m, int depth) const override;
  std::optional<var> attribute(interpreter& in, std::string_view name) override;
  std::optional<var> item(interpreter& in, const var& key) override;
  std::unique_ptr<cursor> iterate(interpreter& in) override;
  std::optional<std::size_t> length(interpreter&) override { return count_; }
  bool subscriptable() const override { return true; }
  std::int64_t at(std::size_t i) const { return start_ + static_cast<std::int64_t>(i) * step_; }
  std::size_t count() const { return count_; }
  // Places [start, stop) by `step`, which lie inside or one beyond an end.
  std::shared_ptr<object> part(std::int64_t start, std::int64_t stop, std::int64_t step) const;

 private:
  std::int64_t start_;
  std::int64_t stop_;
  std::int64_t step_;
  std::size_t count_ = 0;
};

// namespace(a=1): the one thing a template may change.
class namespace_object final : public object {
 public:
  const char* type_name() const override { return "Namespace"; }
  traced_text repr(meter& m, int depth) const override;
  std::optional<var> attribute(interpreter& in, std::string_view name) override;
  int depth() const override { return 1; }  // its makers keep it alive: see interpreter::make
  void clear() override { members_ = {}; }
  void set(interpreter& in, const std::string& name, var v);

 private:
  dictionary members_;
};

// `loop` inside a for.
class loop_object final : public object {
 public:
  loop_object(var over, std::unique_ptr<cursor> items, int depth0)
      : over_(std::move(over)), items_(std::move(items)), depth0_(depth0) {}
  const char* type_name() const override { return "LoopContext"; }
  traced_text repr(meter& m, int depth) const override;
  std::optional<var> attribute(interpreter& in, std::string_view name) override;
  std::optional<std::size_t> length(interpreter& in) override;
  bool callable() const override { return true; }
  var call(interpreter& in, arguments& args) override;
  int depth() const override { return over_.depth() + 1; }
  void clear() override;

  // The next item; nullopt at the end.
  std::optional<var> advance();
  // Makes `loop(items)` print the loop's body over them, one level deeper.
  void recurse_with(std::function<var(interpreter&, const var&, int)> body) {
    recurse_ = std::move(body);
  }

 private:
  const std::optional<var>& peek();
  var cycle(const arguments& args) const;
  bool changed(interpreter& in, arguments& args);

  var over_;
  std::unique_ptr<cursor> items_;
  int depth0_;
  std::int64_t index0_ = -1;
  std::optional<std::size_t> length_;
  bool peeked_ = false;
  std::optional<var> after_;
  std::optional<var> current_;
  std::optional<var> before_;
  std::optional<var> last_changed_;
  std::function<var(interpreter&, const var&, int)> recurse_;
};

// A macro, or the `caller` of a call block.
class macro_object final : public object {
 public:
  macro_object(const macro_body& macro, std::shared_ptr<scope> made_in)
      : macro_(macro), made_in_(std::move(made_in)) {}
  const char* type_name() const override { return "Macro"; }
  traced_text repr(meter& m, int depth) const override;
  std::optional<var> attribute(interpreter& in, std::string_view name) override;
  bool callable() const override { return true; }
  var call(interpreter& in, arguments& args) override;

 private:
  void bind(interpreter& in, arguments& args, scope& to) const;

  const macro_body& macro_;  // of the program, which outlives the render
  std::shared_ptr<scope> made_in_;
};

class cycler_object final : public object {
 public:
  explicit cycler_object(var items) : items_(std::move(items)) {}
  const char* type_name() const override { return "Cycler"; }
  std::optional<var> attribute(interpreter& in, std::string_view name) override;
  int depth() const override { return items_.depth() + 1; }

 private:
  var items_;  // a tuple
  std::size_t at_ = 0;
};

class joiner_object final : public object {
 public:
  explicit joiner_object(var separator) : separator_(std::move(separator)) {}
  const char* type_name() const override { return "Joiner"; }
  bool callable() const override { return true; }
  var call(interpreter& in, arguments& args) override;
  int depth() const override { return separator_.depth() + 1; }

 private:
  var separator_;
  bool used_ = false;
};

var make_function(std::string name, native_function::body run, int depth = 1);
// Items made by `next`; `depth` of what it holds.
var make_generator(interpreter& in, const char* type, generator::step next, int depth);

}  // namespace tandem::text::jinja
