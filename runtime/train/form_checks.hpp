// What the checks of training data share: the list of a line's faults, and their common words.
#pragma once

#include "runtime/train/example_form.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace tandem::train {

class fault_list {
 public:
  fault_list(std::int64_t line, std::vector<fault>& out) : line_(line), out_(out) {}
  void add(std::string field, std::string what) {
    out_.push_back({line_, std::move(field), std::move(what)});
  }
  std::size_t size() const { return out_.size(); }

 private:
  std::int64_t line_;
  std::vector<fault>& out_;
};

std::string_view kind_of(const text::value& v);  // "a string", "null"
// "; did you mean 'rank'?", or all that is known.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& known);

// A line with "messages": everything in and beside them.
chat_form read_chat(const text::value& line, fault_list& faults);

}  // namespace tandem::train
