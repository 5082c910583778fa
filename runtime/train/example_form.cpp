// Which form a line has, and the forms of text. The chat form is checked by chat_form.cpp.
#include "runtime/train/example_form.hpp"

#include "runtime/nearest_name.hpp"
#include "runtime/train/form_checks.hpp"
#include "runtime/train/json_line.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::train {

using text::value;

namespace {

const std::vector<std::string> known_keys = {
    "messages", "tools", "parallel_tool_calls", "prompt", "completion", "input", "output", "text"};

struct form_kind {
  std::string_view name;
  std::vector<std::string_view> needed;
  std::vector<std::string_view> optional;
};

const std::vector<form_kind> kinds = {
    {"chat", {"messages"}, {"tools", "parallel_tool_calls"}},
    {"prompt and completion", {"prompt", "completion"}, {}},
    {"input and output", {"input", "output"}, {}},
    {"text", {"text"}, {}},
};

constexpr std::string_view forms_text =
    R"({"messages": […]}, {"prompt", "completion"}, {"input", "output"} or {"text"})";

bool has(const value& line, std::string_view key) { return line.find(key) != nullptr; }

bool in(const std::vector<std::string_view>& list, std::string_view key) {
  return std::find(list.begin(), list.end(), key) != list.end();
}

// Preference data is known by name, so that nobody is sent looking for a misspelling.
bool refuse_preferences(const value& line, fault_list& faults) {
  for (const std::string_view key : {"preferred_output", "non_preferred_output"}) {
    if (!has(line, key)) continue;
    faults.add(std::string(key),
               "this is preference data (DPO), which is not built; write the preferred answer as "
               "the last message of {\"messages\": […]} to train on it");
    return true;
  }
  for (const std::string_view key : {"chosen", "rejected"}) {
    if (!has(line, key)) continue;
    faults.add(std::string(key),
               "this is preference data (DPO), which is not built; write {\"prompt\", "
               "\"completion\"} with the chosen text to train on it");
    return true;
  }
  return false;
}

const form_kind* find_kind(const value& line, fault_list& faults) {
  std::vector<const form_kind*> begun;
  for (const form_kind& kind : kinds)
    if (std::any_of(kind.needed.begin(), kind.needed.end(),
                    [&](std::string_view key) { return has(line, key); }))
      begun.push_back(&kind);
  if (begun.size() > 1) {
    faults.add({}, fmt::format("two forms at once, {} and {}; a line has one form: {}",
                               begun[0]->name, begun[1]->name, forms_text));
    return nullptr;
  }
  if (begun.empty()) return nullptr;
  bool whole = true;
  for (const std::string_view key : begun[0]->needed) {
    if (has(line, key)) continue;
    faults.add(std::string(key), fmt::format("missing; the {} form needs it", begun[0]->name));
    whole = false;
  }
  return whole ? begun[0] : nullptr;
}

void refuse_unknown(const value& line, const form_kind* kind, fault_list& faults) {
  for (const auto& [key, held] : *line.if_object()) {
    if (kind != nullptr && (in(kind->needed, key) || in(kind->optional, key))) continue;
    if (key == "functions" || key == "function_call") {
      faults.add(key, "the old form; write \"tools\" and \"tool_calls\"");
    } else if (std::find(known_keys.begin(), known_keys.end(), key) != known_keys.end()) {
      if (kind != nullptr) faults.add(key, fmt::format("not part of the {} form", kind->name));
    } else {
      faults.add(key, fmt::format("unknown{}", did_you_mean(key, known_keys)));
    }
  }
}

std::string read_text(const value& line, std::string_view key, bool may_be_empty,
                      fault_list& faults) {
  const std::string* words = line.find(key)->if_string();
  if (words == nullptr) {
    faults.add(std::string(key),
               fmt::format("expected a string, got {}", kind_of(*line.find(key))));
    return {};
  }
  if (words->empty() && !may_be_empty)
    faults.add(std::string(key), "empty; there is nothing to learn");
  return *words;
}

}  // namespace

std::string_view kind_of(const value& v) {
  if (v.is_null()) return "null";
  if (v.if_bool() != nullptr) return "a boolean";
  if (v.if_int() != nullptr || v.if_double() != nullptr) return "a number";
  if (v.if_string() != nullptr) return "a string";
  return v.if_array() != nullptr ? "an array" : "an object";
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& known) {
  const auto near = nearest_name(word, known);
  if (near) return fmt::format("; did you mean '{}'?", *near);
  return fmt::format("; known are {}", fmt::join(known, ", "));
}

struct form_reader::state {
  json_line json;
};

form_reader::form_reader() : state_(std::make_unique<state>()) {}
form_reader::~form_reader() = default;

example_form form_reader::read(std::string_view json, std::int64_t line, std::vector<fault>& out) {
  fault_list faults(line, out);
  fault wrong;
  const auto parsed = state_->json.parse(json, wrong);
  if (!parsed) {
    faults.add(wrong.field, wrong.what);
    return text_form();
  }
  if (refuse_preferences(*parsed, faults)) return text_form();
  const std::size_t before = out.size();
  const form_kind* kind = find_kind(*parsed, faults);
  refuse_unknown(*parsed, kind, faults);
  if (kind == nullptr) {
    if (out.size() == before)
      faults.add({}, fmt::format("no form of training data; a line is {}", forms_text));
    return text_form();
  }
  if (kind == &kinds[0]) return read_chat(*parsed, faults);
  if (kind == &kinds[3]) return text_form{read_text(*parsed, "text", false, faults)};
  pair_form pair;
  pair.first = read_text(*parsed, kind->needed[0], true, faults);
  pair.second = read_text(*parsed, kind->needed[1], false, faults);
  return pair;
}

}  // namespace tandem::train
