// The rules behind "auto". They follow from sizes alone, so that a job asked for twice is the same
// job; each says where its numbers come from.
#include "runtime/train/job_options.hpp"

#include "runtime/train/option_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string_view>

namespace tandem::train {

using text::value;

namespace {

constexpr std::string_view published_place = "method.supervised.hyperparameters";
constexpr std::string_view own_place = "tandem";

bool asked(const value& object, std::string_view name) {
  const value* found = object.find(name);
  return found != nullptr && !is_auto(*found);
}

std::int64_t ceil_of(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// 0.2 % of the examples as OpenAI does, at most 64. Few examples need many updates more than smooth
// ones: an eighth of them, at least 1, up to the 4 that larger files begin with.
std::int64_t auto_batch_size(std::int64_t examples) {
  const std::int64_t least = std::clamp<std::int64_t>(examples / 8, 1, 4);
  return std::clamp<std::int64_t>(std::llround(0.002 * static_cast<double>(examples)), least, 64);
}

// Three, and for small files as many as make 200 steps, at most 25.
int auto_epochs(std::int64_t steps_per_epoch) {
  return static_cast<int>(std::clamp<std::int64_t>(ceil_of(200, steps_per_epoch), 3, 25));
}

// Wider models want smaller steps: 5e-4 (2000 / D)^0.78 for LoRA, a tenth of it for all weights;
// the law that Schulman et al. fitted ("LoRA Without Regret", 2025). SmolLM2-135M: 1.3e-3 and
// 1.3e-4; D = 4096: 2.9e-4 and 2.9e-5. Two digits, so that it reads well.
double default_learning_rate(training_method method, std::int64_t model_size) {
  const double width = static_cast<double>(std::max<std::int64_t>(model_size, 1));
  const double lora = std::clamp(5e-4 * std::pow(2000.0 / width, 0.78), 5e-5, 2e-3);
  const double rate = method == training_method::lora ? lora : lora / 10.0;
  return std::strtod(fmt::format("{:.1e}", rate).c_str(), nullptr);
}

// Every linear module the family has.
std::vector<std::string> all_modules(const model::model_config& config) {
  const bool fused = config.family == "phi3";
  std::vector<std::string> all;
  if (fused)
    all = {"qkv_proj", "o_proj"};
  else
    all = {"q_proj", "k_proj", "v_proj", "o_proj"};
  const bool only_experts =
      !config.layers.empty() &&
      std::all_of(config.layers.begin(), config.layers.end(), [](const auto& l) { return l.moe; });
  if (only_experts) return all;
  for (const char* name : {"gate_proj", "up_proj", "gate_up_proj"})
    if ((std::string_view(name) == "gate_up_proj") == fused) all.emplace_back(name);
  all.emplace_back("down_proj");
  return all;
}

// What would have no effect is not what was meant.
result<void> check_method(const value& own, const job_settings& settings) {
  const bool lora = settings.method == training_method::lora;
  for (const std::string_view name : {"rank", "alpha", "targets", "serve_format"}) {
    if (!asked(own, name) || (name == "serve_format") != lora) continue;
    const std::string field = fmt::format("{}.{}", own_place, name);
    return error{errc::bad_request,
                 fmt::format("'{}' has no effect with \"method\": \"{}\"; leave it out", field,
                             lora ? "lora" : "full"),
                 field};
  }
  if (settings.targets.empty() && asked(own, "targets"))
    return error{errc::bad_request, "'tandem.targets' names no module; leave it out for all",
                 "tandem.targets"};
  return {};
}

result<job_settings> read_asked(const value& hyperparameters, const value& own) {
  job_settings settings;
  if (auto good = set_options(hyperparameters, option_group::published, published_place, settings);
      !good)
    return good.error();
  if (auto good = set_options(own, option_group::own, own_place, settings); !good)
    return good.error();
  if (auto good = check_method(own, settings); !good) return good.error();
  return settings;
}

}  // namespace

result<void> check_options(const value& hyperparameters, const value& own) {
  const auto read = read_asked(hyperparameters, own);
  if (!read) return read.error();
  return {};
}

result<job_settings> settle_options(const value& hyperparameters, const value& own,
                                    const model::model_config& config, const data_facts& facts,
                                    int default_slots, std::uint64_t seed) {
  auto read = read_asked(hyperparameters, own);
  if (!read) return read.error();
  job_settings& s = *read;
  s.seed = seed;
  const std::int64_t context = config.context_length;
  if (asked(own, "sequence_length") && s.sequence_length > context)
    return error{errc::bad_request,
                 fmt::format("'tandem.sequence_length' is {}, more than the model's context of {}",
                             s.sequence_length, context),
                 "tandem.sequence_length"};
  if (!asked(own, "sequence_length")) {
    const std::int64_t wanted = std::max<std::int64_t>(ceil_of(facts.longest, 16) * 16, 256);
    s.sequence_length = std::max<std::int64_t>(std::min(wanted, context), 2);
  }
  if (!asked(own, "slots")) s.slots = default_slots;

  const std::int64_t examples = std::max<std::int64_t>(facts.examples, 1);
  if (!asked(hyperparameters, "batch_size")) s.batch_size = auto_batch_size(examples);
  const std::int64_t steps_per_epoch = ceil_of(examples, s.batch_size);
  if (!asked(hyperparameters, "n_epochs")) s.epochs = auto_epochs(steps_per_epoch);
  const std::int64_t steps = steps_per_epoch * s.epochs;
  if (!asked(own, "warmup_steps")) s.warmup_steps = std::min<std::int64_t>(ceil_of(steps, 20), 100);

  const double usual = default_learning_rate(s.method, config.model_size);
  if (asked(own, "learning_rate"))
    s.learning_rate_multiplier = s.learning_rate / usual;
  else
    s.learning_rate = s.learning_rate_multiplier * usual;
  if (!(s.learning_rate > 0.0 && s.learning_rate <= 1.0)) {
    const std::string field = fmt::format("{}.learning_rate_multiplier", published_place);
    return error{errc::bad_request,
                 fmt::format("'{}' makes the learning rate {}; it must be above 0 and at most 1, "
                             "and is {} with 1",
                             field, s.learning_rate, usual),
                 field};
  }
  if (!asked(own, "alpha")) s.alpha = 2.0 * s.rank;
  if (s.method == training_method::full)
    s.targets.clear();
  else if (!asked(own, "targets"))
    s.targets = all_modules(config);
  return s;
}

value shown_hyperparameters(const job_settings& settings) {
  value shown;
  for (const option& row : option_table())
    if (row.group == option_group::published) shown.set(row.asked(), row.show(settings));
  return shown;
}

value shown_settings(const job_settings& settings) {
  value shown;
  for (const option& row : option_table()) shown.set(row.name, row.show(settings));
  return shown;
}

result<job_settings> settings_from(const value& shown) {
  const auto broken = [](std::string_view name, std::string_view what) {
    return error{errc::bad_file, fmt::format("stored settings: '{}' {}", name, what),
                 std::string(name)};
  };
  if (shown.if_object() == nullptr) return broken("settings", "are no object");
  job_settings settings;
  for (const option& row : option_table()) {
    const value* held = shown.find(row.name);
    if (held == nullptr && row.name == "precision") {  // jobs from before there was a choice
      settings.precision = product_precision::f32;
      continue;
    }
    if (held == nullptr) return broken(row.name, "is missing");
    if (auto good = row.set(*held, settings); !good)
      return broken(row.name, fmt::format("must be {}", good.error().detail));
  }
  for (const auto& [key, held] : *shown.if_object())
    if (std::none_of(option_table().begin(), option_table().end(),
                     [&, &name = key](const option& row) { return row.name == name; }))
      return broken(key, "is not known to this version");
  return settings;
}

}  // namespace tandem::train
