// What a template computes with: Python's values as Jinja shows them. Containers never change once
// built, so they cannot hold themselves; what does change (a namespace, a loop) is an `object`.
// Nothing here waits or allocates without spending from the render's `meter`, which is what keeps a
// hostile template from hanging or eating memory.
#pragma once

#include "runtime/result.hpp"
#include "runtime/text/jinja_text.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace tandem::text::jinja {

// The one way out of a template that fails: thrown by whoever finds the cause, caught in
// chat_template.cpp and nowhere else. Plumbing a result through every operator of an interpreter
// would bury what the operators do.
struct refusal {
  errc code = errc::bad_request;
  std::string detail;
};
[[noreturn]] void refuse(std::string detail, errc code = errc::bad_request);

// Steps are evaluated nodes, visited items and sixteenths of bytes made or searched.
class meter {
 public:
  static constexpr std::size_t steps_max = 10'000'000;
  static constexpr std::size_t text_bytes_max = std::size_t{16}
                                                << 20;  // of one string, or all output
  static constexpr int nesting_max = 200;               // of containers

  void spend(std::size_t steps) {
    if (steps > left_) out_of_steps();
    left_ -= steps;
  }
  // Call before making or searching that many bytes.
  void spend_bytes(std::size_t bytes) {
    if (bytes > text_bytes_max) text_too_long(bytes);
    spend(1 + bytes / 16);
  }

 private:
  [[noreturn]] static void out_of_steps();
  [[noreturn]] static void text_too_long(std::size_t bytes);
  std::size_t left_ = steps_max;
};

class var;
class dictionary;
class object;

struct undefined_info {
  std::string why;  // "'x' is undefined": the error when it is used as a value
};
struct sequence {
  std::vector<var> items;
  int depth = 1;  // of nesting, itself included
};
// A string and whether `escape` or `safe` marked it as HTML.
struct string_data {
  traced_text text;
  bool markup = false;
};

class var {
 public:
  struct undefined_t {
    std::shared_ptr<const undefined_info> info;
  };
  struct none_t {};
  struct list_t {
    std::shared_ptr<const sequence> data;
  };
  struct tuple_t {
    std::shared_ptr<const sequence> data;
  };

  var() : state_(none_t{}) {}
  var(bool b) : state_(b) {}
  var(std::int64_t i) : state_(i) {}
  var(double d) : state_(d) {}
  var(traced_text text, bool markup = false)
      : state_(std::make_shared<const string_data>(string_data{std::move(text), markup})) {}
  var(std::shared_ptr<const dictionary> d) : state_(std::move(d)) {}
  var(std::shared_ptr<object> o) : state_(std::move(o)) {}
  // Text of the template's or of ours.
  static var literal(std::string_view text) { return var(traced_text(std::string(text), true)); }
  static var undefined(std::string why);
  static var list(
      std::vector<var> items);  // refuses nesting beyond the bound, as do all containers
  static var tuple(std::vector<var> items);
  // Containers of any size fit, so indexes count as the int64 that Python's int is here.
  static var integer(std::size_t n) { return var(static_cast<std::int64_t>(n)); }

  bool is_undefined() const { return std::holds_alternative<undefined_t>(state_); }
  bool is_none() const { return std::holds_alternative<none_t>(state_); }
  bool is_string() const { return if_string() != nullptr; }
  const std::string& why_undefined() const { return std::get<undefined_t>(state_).info->why; }
  const bool* if_bool() const { return std::get_if<bool>(&state_); }
  const std::int64_t* if_int() const { return std::get_if<std::int64_t>(&state_); }
  const double* if_double() const { return std::get_if<double>(&state_); }
  const traced_text* if_string() const {
    auto held = std::get_if<std::shared_ptr<const string_data>>(&state_);
    return held == nullptr ? nullptr : &(*held)->text;
  }
  bool is_markup() const {
    auto held = std::get_if<std::shared_ptr<const string_data>>(&state_);
    return held != nullptr && (*held)->markup;
  }
  const std::vector<var>* if_list() const {
    auto held = std::get_if<list_t>(&state_);
    return held == nullptr ? nullptr : &held->data->items;
  }
  const std::vector<var>* if_tuple() const {
    auto held = std::get_if<tuple_t>(&state_);
    return held == nullptr ? nullptr : &held->data->items;
  }
  const std::vector<var>* if_sequence() const { return if_list() ? if_list() : if_tuple(); }
  const dictionary* if_dict() const {
    auto held = std::get_if<std::shared_ptr<const dictionary>>(&state_);
    return held == nullptr ? nullptr : held->get();
  }
  std::shared_ptr<const dictionary> shared_dict() const {
    return std::get<std::shared_ptr<const dictionary>>(state_);
  }
  object* if_object() const {
    auto held = std::get_if<std::shared_ptr<object>>(&state_);
    return held == nullptr ? nullptr : held->get();
  }
  // A whole number: an int, or a bool as Python counts it.
  std::optional<std::int64_t> whole() const;
  std::optional<double> number() const;  // of an int, a bool or a float

  int depth() const;
  const char* type_name() const;  // Python's
  bool same_as(const var& other) const;

 private:
  std::variant<undefined_t, none_t, bool, std::int64_t, double, std::shared_ptr<const string_data>,
               list_t, tuple_t, std::shared_ptr<const dictionary>, std::shared_ptr<object>>
      state_;
};

// Members in the order written; a key is anything hashable.
class dictionary {
 public:
  using member = std::pair<var, var>;
  const std::vector<member>& members() const { return members_; }
  const var* find(meter& m, const var& key) const;  // refuses what cannot be a key
  const var* find(std::string_view key) const;
  void put(meter& m, var key, var v);  // while it is being built
  int depth() const { return depth_; }

 private:
  static constexpr std::size_t small = 12;  // up to here a scan beats the table
  std::optional<std::size_t> place(meter& m, const var& key) const;
  std::vector<member> members_;
  std::unordered_map<std::string_view, std::size_t> places_;  // of string keys, once large
  int depth_ = 1;
};

// One pass over something.
class cursor {
 public:
  virtual ~cursor() = default;
  virtual std::optional<var> next() = 0;
};

struct arguments {
  std::vector<var> positional;
  std::vector<std::pair<std::string, var>> named;
};
class interpreter;

// Everything that is not plain data: functions, macros, loops, namespaces, generators, ranges.
class object : public std::enable_shared_from_this<object> {
 public:
  virtual ~object() = default;
  virtual const char* type_name() const = 0;
  virtual traced_text repr(meter& m, int depth) const;
  virtual std::optional<var> attribute(interpreter& in, std::string_view name);
  virtual std::optional<var> item(interpreter& in, const var& key);
  virtual std::unique_ptr<cursor> iterate(interpreter&) { return nullptr; }  // null: not iterable
  virtual std::optional<std::size_t> length(interpreter&) { return std::nullopt; }
  virtual bool subscriptable() const { return false; }
  virtual bool callable() const { return false; }
  virtual var call(interpreter& in, arguments& args);
  virtual int depth() const { return 1; }
  // Drops what it holds: ends cycles when a render is over.
  virtual void clear() {}
};

bool truth(interpreter& in, const var& v);
bool equal(meter& m, const var& a, const var& b, int depth = 0);
enum class order { less, less_equal, greater, greater_equal };
bool ordered(meter& m, order op, const var& a, const var& b, int depth = 0);
bool contains(interpreter& in, const var& container, const var& item);
std::optional<std::size_t> length_of(interpreter& in, const var& v);  // nullopt: has none
std::unique_ptr<cursor> iterate(interpreter& in, const var& v);       // refuses what cannot
std::vector<var> items_of(interpreter& in, const var& v);             // one full pass

// Python's str() and repr().
traced_text to_text(meter& m, const var& v);
traced_text to_repr(meter& m, const var& v, int depth = 0);
std::string double_repr(double d);
std::string string_repr(std::string_view text);

}  // namespace tandem::text::jinja
