// job_settings as JSON and back, every field by its name. (Until job_options.cpp has both.)
#include "runtime/train/job_options.hpp"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace tandem::train {
namespace {

using text::value;

template <class Visit>
void each_field(Visit& visit) {
  visit("rank", &job_settings::rank);
  visit("alpha", &job_settings::alpha);
  visit("targets", &job_settings::targets);
  visit("epochs", &job_settings::epochs);
  visit("batch_size", &job_settings::batch_size);
  visit("slots", &job_settings::slots);
  visit("micro_batch", &job_settings::micro_batch);
  visit("sequence_length", &job_settings::sequence_length);
  visit("packing", &job_settings::packing);
  visit("shuffle", &job_settings::shuffle);
  visit("seed", &job_settings::seed);
  visit("learning_rate", &job_settings::learning_rate);
  visit("beta1", &job_settings::beta1);
  visit("beta2", &job_settings::beta2);
  visit("eps", &job_settings::eps);
  visit("weight_decay", &job_settings::weight_decay);
  visit("clip_norm", &job_settings::clip_norm);
  visit("warmup_steps", &job_settings::warmup_steps);
  visit("recompute", &job_settings::recompute);
  visit("publish_every_steps", &job_settings::publish_every_steps);
  visit("checkpoint_every_steps", &job_settings::checkpoint_every_steps);
  visit("checkpoints_kept", &job_settings::checkpoints_kept);
  visit("serve_format", &job_settings::serve_format);
}

constexpr std::array methods{"lora", "full"};
constexpr std::array schedules{"constant", "linear", "cosine", "warmup_stable_decay"};
constexpr std::array long_ways{"refuse", "truncate", "skip"};

value to_value(bool b) { return b; }
value to_value(int i) { return i; }
value to_value(std::int64_t i) { return i; }
value to_value(std::uint64_t i) { return static_cast<std::int64_t>(i); }
value to_value(double d) { return d; }
value to_value(const std::string& s) { return s; }
value to_value(const std::vector<std::string>& all) {
  value::array items;
  for (const auto& one : all) items.emplace_back(one);
  return items;
}

template <class T>
bool from_number(const value& v, T& to) {
  if (const auto* i = v.if_int()) to = static_cast<T>(*i);
  return v.if_int() != nullptr;
}
bool from_value(const value& v, bool& to) {
  if (const bool* b = v.if_bool()) to = *b;
  return v.if_bool() != nullptr;
}
bool from_value(const value& v, int& to) { return from_number(v, to); }
bool from_value(const value& v, std::int64_t& to) { return from_number(v, to); }
bool from_value(const value& v, std::uint64_t& to) { return from_number(v, to); }
bool from_value(const value& v, double& to) {
  if (from_number(v, to)) return true;
  if (const double* d = v.if_double()) to = *d;
  return v.if_double() != nullptr;
}
bool from_value(const value& v, std::string& to) {
  if (const std::string* s = v.if_string()) to = *s;
  return v.if_string() != nullptr;
}
bool from_value(const value& v, std::vector<std::string>& to) {
  if (v.if_array() == nullptr) return false;
  for (const value& item : *v.if_array()) {
    if (item.if_string() == nullptr) return false;
    to.push_back(*item.if_string());
  }
  return true;
}

template <class Enum, std::size_t Count>
bool from_name(const value* v, const std::array<const char*, Count>& names, Enum& to) {
  if (v == nullptr || v->if_string() == nullptr) return false;
  for (std::size_t i = 0; i < Count; ++i) {
    if (*v->if_string() != names[i]) continue;
    to = static_cast<Enum>(i);
    return true;
  }
  return false;
}

}  // namespace

value shown_settings(const job_settings& settings) {
  value shown =
      value::object{{"method", methods[static_cast<std::size_t>(settings.method)]},
                    {"schedule", schedules[static_cast<std::size_t>(settings.schedule)]},
                    {"long_examples", long_ways[static_cast<std::size_t>(settings.long_examples)]}};
  const auto show = [&](const char* name, auto field) {
    shown.set(name, to_value(settings.*field));
  };
  each_field(show);
  return shown;
}

result<job_settings> settings_from(const value& shown) {
  job_settings settings;
  std::string wrong;
  if (!from_name(shown.find("method"), methods, settings.method)) wrong = "method";
  if (!from_name(shown.find("schedule"), schedules, settings.schedule)) wrong = "schedule";
  if (!from_name(shown.find("long_examples"), long_ways, settings.long_examples))
    wrong = "long_examples";
  const auto read = [&](const char* name, auto field) {
    const value* found = shown.find(name);
    if (found == nullptr || !from_value(*found, settings.*field)) wrong = name;
  };
  each_field(read);
  if (!wrong.empty())
    return error{errc::bad_file, fmt::format("'{}' is not as written", wrong), {}};
  return settings;
}

}  // namespace tandem::train
