// Everything a template can call by name: filters, tests, functions and methods.
#pragma once

#include "runtime/text/jinja_interpreter.hpp"

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::text::jinja {

// Null when there is none of that name.
filter_function find_filter(std::string_view name);
test_function find_test(std::string_view name);
// range, dict, namespace, ...: what a name means when no variable has it.
std::optional<var> find_global(std::string_view name);
// A method of a string, list, tuple or dict, bound to `self`; nullopt when it has none of the name.
// A method that would change `self` is an undefined that refuses to be used.
std::optional<var> find_method(const var& self, std::string_view name);

// One part of the filter table; jinja_filters.cpp joins them.
struct named_filter {
  std::string_view name;
  filter_function function;
};
std::vector<named_filter> text_filters();
std::vector<named_filter> sequence_filters();
std::vector<named_filter> number_filters();

// The arguments of one call, matched to parameter names as Python does.
class parameters {
 public:
  parameters(std::string_view function, arguments& args,
             std::initializer_list<std::string_view> names, std::size_t required = 0);

  bool has(std::size_t i) const { return found_[i] != nullptr; }
  // Null when not given.
  const var* get(std::size_t i) const { return found_[i]; }
  const var& at(std::size_t i) const { return *found_[i]; }
  bool truth(interpreter& in, std::size_t i, bool fallback) const;
  std::int64_t whole(std::size_t i, std::int64_t fallback) const;
  // Not given, or None.
  bool none(std::size_t i) const { return found_[i] == nullptr || found_[i]->is_none(); }
  const traced_text& text(std::size_t i) const;  // refuses what is no string

 private:
  std::string_view function_;
  std::vector<const var*> found_;
};

traced_text to_json(interpreter& in, const var& v, arguments& args);  // tojson
traced_text format_percent(interpreter& in, const traced_text& format, const var& values);
traced_text format_braces(interpreter& in, const traced_text& format, const arguments& args);
traced_text escape_html(meter& m, const traced_text& text);
traced_text join(interpreter& in, const traced_text& separator, const std::vector<var>& items);
traced_text replace(interpreter& in, const traced_text& text, const traced_text& from,
                    const traced_text& to, std::int64_t count);
traced_text repeat(meter& m, const traced_text& text, std::int64_t times);
traced_text pad(meter& m, const traced_text& text, std::int64_t left, std::int64_t right,
                std::string_view fill, bool fill_trusted = true);
std::optional<std::int64_t> parse_whole(std::string_view text, int base);
std::optional<double> parse_real(std::string_view text);
// The value that `attribute` ("a.b.0", or an index) leads to.
var follow(interpreter& in, const var& from, const var& attribute, const var* fallback = nullptr);

}  // namespace tandem::text::jinja
