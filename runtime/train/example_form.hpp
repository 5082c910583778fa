// One line of training data: from JSON to one of the four forms, checked strictly. Needs no model.
// The rule: every fault is said by field, and what was not understood is never passed over.
#pragma once

#include "runtime/text/value.hpp"
#include "runtime/train/dataset.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace tandem::train {

struct chat_form {
  text::value::array messages;  // as templates expect them (text::template_message), no weights
  text::value tools;            // null: none
  std::vector<bool> counts;     // by message: an assistant turn whose weight is not 0
};
// prompt and completion, or input and output.
struct pair_form {
  std::string first;
  std::string second;
};
struct text_form {
  std::string text;
};
using example_form = std::variant<chat_form, pair_form, text_form>;

class form_reader {
 public:
  form_reader();
  ~form_reader();
  // Every fault of the line goes to `faults` (line numbers are set to `line`); the form is whole
  // only when none was added.
  example_form read(std::string_view json, std::int64_t line, std::vector<fault>& faults);

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace tandem::train
