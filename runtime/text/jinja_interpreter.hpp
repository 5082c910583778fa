// One render: variables, output, limits. A fresh one for each, so a template can be rendered from
// many threads.
#pragma once

#include "runtime/text/jinja_ast.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tandem::text::jinja {

// Variables of one loop body, macro call, ...; macros keep the scope they were made in.
struct scope {
  std::shared_ptr<scope> outer;
  std::vector<std::pair<symbol, var>> variables;
  void set(symbol name, var v);
};

class interpreter {
 public:
  explicit interpreter(const program_tree& program) : program_(program) {}
  ~interpreter();  // ends the cycles that namespaces, loops and macros can form
  interpreter(const interpreter&) = delete;
  interpreter& operator=(const interpreter&) = delete;

  static constexpr int calls_max = 200;     // macros and recursive loops inside one another
  static constexpr int nesting_max = 2500;  // evaluations inside one another: bounds the C++ stack

  meter work;
  int line = 1;                     // of what runs now, for errors
  std::optional<std::int64_t> now;  // the time strftime_now() shows; unset: the clock

  const program_tree& program() const { return program_; }

  var evaluate(const expression& e) {
    nested inside(*this);
    work.spend(1);
    return e.evaluate(*this);
  }
  flow run(const block& body);
  // Runs `body` in a scope of its own and adds what it prints to `printed`.
  flow capture(const block& body, traced_text& printed);
  void print(const traced_text& text);
  void print(std::string_view text);

  var lookup(symbol name) const;
  void set(symbol name, var v) { scope_->set(name, std::move(v)); }

  // Runs the rest of the C++ scope with another set of variables.
  class in_scope {
   public:
    in_scope(interpreter& in, std::shared_ptr<scope> inner);
    ~in_scope() { in_.scope_ = std::move(saved_); }
    in_scope(const in_scope&) = delete;
    in_scope& operator=(const in_scope&) = delete;

   private:
    interpreter& in_;
    std::shared_ptr<scope> saved_;
  };
  // Counts macro calls.
  class in_call {
   public:
    explicit in_call(interpreter& in);
    ~in_call() { --in_.calls_; }
    in_call(const in_call&) = delete;
    in_call& operator=(const in_call&) = delete;

   private:
    interpreter& in_;
  };
  // Collects what is printed.
  class in_buffer {
   public:
    explicit in_buffer(interpreter& in) : in_(in), saved_(std::exchange(in.output_, &text)) {}
    ~in_buffer() { in_.output_ = saved_; }
    in_buffer(const in_buffer&) = delete;
    in_buffer& operator=(const in_buffer&) = delete;
    traced_text text;

   private:
    interpreter& in_;
    traced_text* saved_;
  };

  std::shared_ptr<scope> current_scope() const { return scope_; }
  std::shared_ptr<scope> template_scope() const { return template_scope_; }
  std::shared_ptr<scope> inner_scope() const { return std::make_shared<scope>(scope{scope_, {}}); }

  // A scope that a macro keeps, an object that can change: cleared when the render is over.
  void keep(const std::shared_ptr<scope>& kept);
  template <class T, class... Args>
  std::shared_ptr<T> make(Args&&... args) {
    work.spend(8);
    auto made = std::make_shared<T>(std::forward<Args>(args)...);
    made_.push_back(made);
    return made;
  }

  // The text that a filter or set block hands to its filters.
  const var* block_text = nullptr;

  class nested {
   public:
    explicit nested(interpreter& in) : in_(in) {
      if (++in_.nesting_ > nesting_max) in_.too_nested();
    }
    ~nested() { --in_.nesting_; }
    nested(const nested&) = delete;
    nested& operator=(const nested&) = delete;

   private:
    interpreter& in_;
  };

 private:
  [[noreturn]] void too_nested();

  const program_tree& program_;
  std::shared_ptr<scope> template_scope_ = std::make_shared<scope>();
  std::shared_ptr<scope> scope_ = template_scope_;
  traced_text* output_ = nullptr;
  int calls_ = 0;
  int nesting_ = 0;
  std::vector<std::weak_ptr<scope>> kept_;
  std::vector<std::weak_ptr<object>> made_;
};

// What operators, filters and `target` share.
var attribute(interpreter& in, const var& from, std::string_view name);  // from.name
var item(interpreter& in, const var& from, const var& key);              // from[key]
var slice(interpreter& in, const var& from, const var& start, const var& stop, const var& step);
var call(interpreter& in, const var& function, arguments& args);
var add(interpreter& in, const var& a, const var& b);
var apply(interpreter& in, binary_op op, const var& a, const var& b);

}  // namespace tandem::text::jinja
