#include "runtime/train/option_table.hpp"

#include "runtime/nearest_name.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

namespace tandem::train {

using text::value;

namespace {

constexpr auto integer_max = std::numeric_limits<std::int64_t>::max();

// The table puts the field's name in front.
error expected(std::string what) { return {errc::bad_request, std::move(what), {}}; }

template <class Integer>
option integer(std::string name, Integer job_settings::*field, std::int64_t least,
               std::int64_t most) {
  const std::string what = most == integer_max
                               ? fmt::format("an integer of at least {}", least)
                               : fmt::format("an integer from {} to {}", least, most);
  return {std::move(name),
          {},
          option_group::own,
          [=](const value& v, job_settings& to) -> result<void> {
            const std::int64_t* number = v.if_int();
            if (number == nullptr || *number < least || *number > most) return expected(what);
            to.*field = static_cast<Integer>(*number);
            return {};
          },
          [=](const job_settings& s) { return value(std::int64_t{s.*field}); }};
}

std::optional<double> finite_number(const value& v) {
  if (const std::int64_t* whole = v.if_int()) return static_cast<double>(*whole);
  if (const double* number = v.if_double(); number != nullptr && std::isfinite(*number))
    return *number;
  return std::nullopt;
}

using is_possible = bool (*)(double);
bool positive(double x) { return x > 0.0; }
bool not_negative(double x) { return x >= 0.0; }
bool a_rate(double x) { return x > 0.0 && x <= 1.0; }

option number(std::string name, double job_settings::*field, is_possible possible,
              std::string what) {
  return {std::move(name),
          {},
          option_group::own,
          [=](const value& v, job_settings& to) -> result<void> {
            const auto given = finite_number(v);
            if (!given || !possible(*given)) return expected(what);
            to.*field = *given;
            return {};
          },
          [=](const job_settings& s) { return value(s.*field); }};
}

option flag(std::string name, bool job_settings::*field) {
  return {std::move(name),
          {},
          option_group::own,
          [=](const value& v, job_settings& to) -> result<void> {
            if (v.if_bool() == nullptr) return expected("true or false");
            to.*field = *v.if_bool();
            return {};
          },
          [=](const job_settings& s) { return value(s.*field); }};
}

template <class Kind>
option choice(std::string name, Kind job_settings::*field,
              std::vector<std::pair<std::string, Kind>> kinds) {
  std::string all;
  for (const auto& [word, kind] : kinds)
    all += fmt::format("{}\"{}\"", all.empty() ? "" : ", ", word);
  return {std::move(name),
          {},
          option_group::own,
          [=](const value& v, job_settings& to) -> result<void> {
            for (const auto& [word, kind] : kinds) {
              if (v.if_string() == nullptr || *v.if_string() != word) continue;
              to.*field = kind;
              return {};
            }
            return expected("one of " + all);
          },
          [=](const job_settings& s) {
            for (const auto& [word, kind] : kinds)
              if (s.*field == kind) return value(word);
            ensure(false, "a choice without a name");
            return value();
          }};
}

const std::vector<std::string> modules = {"q_proj",    "k_proj",    "v_proj",
                                          "o_proj",    "gate_proj", "up_proj",
                                          "down_proj", "qkv_proj",  "gate_up_proj"};

result<void> set_targets(const value& v, job_settings& to) {
  const value::array* list = v.if_array();
  const std::string what = fmt::format("an array of module names ({})", fmt::join(modules, ", "));
  if (list == nullptr) return expected(what);
  std::vector<std::string> targets;
  for (const value& item : *list) {
    const std::string* name = item.if_string();
    if (name == nullptr) return expected(what);
    if (std::find(modules.begin(), modules.end(), *name) == modules.end()) {
      const auto near = nearest_name(*name, modules);
      return expected(near ? fmt::format("{}; '{}' is none, did you mean '{}'?", what, *name, *near)
                           : fmt::format("{}; '{}' is none", what, *name));
    }
    if (std::find(targets.begin(), targets.end(), *name) == targets.end()) targets.push_back(*name);
  }
  to.targets = std::move(targets);
  return {};
}

value show_targets(const job_settings& s) {
  value::array list;
  for (const std::string& name : s.targets) list.emplace_back(name);
  return list;
}

result<void> set_betas(const value& v, job_settings& to) {
  const value::array* list = v.if_array();
  if (list != nullptr && list->size() == 2) {
    const auto first = finite_number((*list)[0]);
    const auto second = finite_number((*list)[1]);
    if (first && second && *first >= 0.0 && *first < 1.0 && *second >= 0.0 && *second < 1.0) {
      to.beta1 = *first;
      to.beta2 = *second;
      return {};
    }
  }
  return expected("two numbers from 0 to below 1: [0.9, 0.999]");
}

result<void> set_slots(const value& v, job_settings& to) {
  const std::int64_t* number = v.if_int();
  if (number == nullptr || *number < 1 || *number > 64 || (*number & (*number - 1)) != 0)
    return expected("1, 2, 4, 8, 16, 32 or 64");
  to.slots = static_cast<int>(*number);
  return {};
}

// JSON numbers end at 2^63 here; seeds beyond are shown as text.
result<void> set_seed(const value& v, job_settings& to) {
  if (const std::int64_t* number = v.if_int(); number != nullptr && *number >= 0) {
    to.seed = static_cast<std::uint64_t>(*number);
    return {};
  }
  if (const std::string* digits = v.if_string()) {
    const char* const end = digits->data() + digits->size();
    const auto [stop, code] = std::from_chars(digits->data(), end, to.seed);
    if (code == std::errc() && stop == end) return {};
  }
  return expected("an integer from 0 to 2^64 - 1");
}

value show_seed(const job_settings& s) {
  if (s.seed <= static_cast<std::uint64_t>(integer_max)) return static_cast<std::int64_t>(s.seed);
  return std::to_string(s.seed);
}

option of_group(option_group group, option row, std::string asked_name = {}) {
  row.group = group;
  row.asked_name = std::move(asked_name);
  return row;
}

std::vector<option> make_table() {
  using js = job_settings;
  return {
      of_group(option_group::published, integer("epochs", &js::epochs, 1, 50), "n_epochs"),
      of_group(option_group::published, integer("batch_size", &js::batch_size, 1, 256)),
      of_group(option_group::published,
               number("learning_rate_multiplier", &js::learning_rate_multiplier, positive,
                      "a number above 0")),
      of_group(option_group::settled, {"seed", {}, {}, set_seed, show_seed}),
      choice<training_method>("method", &js::method,
                              {{"lora", training_method::lora}, {"full", training_method::full}}),
      integer("rank", &js::rank, 1, 4096),
      number("alpha", &js::alpha, positive, "a number above 0"),
      {"targets", {}, option_group::own, set_targets, show_targets},
      number("learning_rate", &js::learning_rate, a_rate, "a number above 0 and at most 1"),
      {"betas",
       {},
       option_group::own,
       set_betas,
       [](const js& s) {
         return value(value::array{s.beta1, s.beta2});
       }},
      number("eps", &js::eps, positive, "a number above 0"),
      integer("sequence_length", &js::sequence_length, 2, std::int64_t{1} << 24),
      integer("micro_batch", &js::micro_batch, 1, 256),
      flag("packing", &js::packing),
      flag("shuffle", &js::shuffle),
      choice<schedule_kind>("schedule", &js::schedule,
                            {{"constant", schedule_kind::constant},
                             {"linear", schedule_kind::linear},
                             {"cosine", schedule_kind::cosine},
                             {"warmup_stable_decay", schedule_kind::warmup_stable_decay}}),
      integer("warmup_steps", &js::warmup_steps, 0, integer_max),
      number("weight_decay", &js::weight_decay, not_negative, "a number of at least 0"),
      number("clip_norm", &js::clip_norm, not_negative, "a number of at least 0 (0: off)"),
      integer("publish_every_steps", &js::publish_every_steps, 0, integer_max),
      integer("checkpoint_every_steps", &js::checkpoint_every_steps, 0, integer_max),
      integer("checkpoints_kept", &js::checkpoints_kept, 1, 1000),
      {"slots", {}, option_group::own, set_slots, [](const js& s) { return value(s.slots); }},
      choice<std::string>(
          "serve_format", &js::serve_format,
          {{"f32", "f32"}, {"bf16", "bf16"}, {"fp8", "fp8"}, {"q8_0", "q8_0"}, {"q4_1", "q4_1"}}),
      choice<product_precision>(
          "precision", &js::precision,
          {{"bf16", product_precision::bf16}, {"f32", product_precision::f32}}),
      flag("recompute", &js::recompute),
      choice<too_long>("long_examples", &js::long_examples,
                       {{"refuse", too_long::refuse},
                        {"truncate", too_long::truncate},
                        {"skip", too_long::skip}}),
  };
}

error unknown(std::string_view key, option_group group, std::string_view prefix) {
  std::vector<std::string> known;
  for (const option& row : option_table())
    if (row.group == group) known.push_back(row.asked());
  const std::string field = fmt::format("{}.{}", prefix, key);
  // A setting of the other place is not misspelt.
  for (const option& row : option_table())
    if (row.group != group && row.group != option_group::settled &&
        (row.asked() == key || row.name == key))
      return {
          errc::bad_request,
          fmt::format("'{}' belongs under {}", field,
                      row.group == option_group::own
                          ? "\"tandem\""
                          : fmt::format("method.supervised.hyperparameters, as '{}'", row.asked())),
          field};
  const auto near = nearest_name(key, known);
  return {errc::bad_request,
          near ? fmt::format("Unknown '{}'; did you mean '{}'?", field, *near)
               : fmt::format("Unknown '{}'; known are {}", field, fmt::join(known, ", ")),
          field};
}

}  // namespace

const std::vector<option>& option_table() {
  static const std::vector<option> table = make_table();
  return table;
}

bool is_auto(const value& v) {
  return v.is_null() || (v.if_string() != nullptr && *v.if_string() == "auto");
}

result<void> set_options(const value& object, option_group group, std::string_view prefix,
                         job_settings& to) {
  if (object.is_null()) return {};
  if (object.if_object() == nullptr)
    return error{errc::bad_request, fmt::format("'{}' must be an object", prefix),
                 std::string(prefix)};
  for (const auto& [key, v] : *object.if_object()) {
    const auto row = std::find_if(
        option_table().begin(), option_table().end(),
        [&, &name = key](const option& o) { return o.group == group && o.asked() == name; });
    if (row == option_table().end()) return unknown(key, group, prefix);
    if (is_auto(v)) continue;
    if (auto good = row->set(v, to); !good) {
      const std::string field = fmt::format("{}.{}", prefix, key);
      return error{errc::bad_request,
                   fmt::format("'{}' must be {}{}, not {}", field, good.error().detail,
                               group == option_group::published ? ", or \"auto\"" : "",
                               v.to_json().substr(0, 100)),
                   field};
    }
  }
  return {};
}

}  // namespace tandem::train
