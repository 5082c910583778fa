#include "runtime/model/rope.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace tandem::model {

namespace {

error refused(std::string detail) { return {errc::bad_file, "rope: " + std::move(detail), {}}; }

std::vector<double> plain_frequencies(double theta, int rotary_size) {
  std::vector<double> frequencies(static_cast<std::size_t>(rotary_size / 2));
  for (std::size_t i = 0; i < frequencies.size(); ++i)
    frequencies[i] = std::pow(theta, -2.0 * static_cast<double>(i) / rotary_size);
  return frequencies;
}

// Low frequencies are slowed down, high ones kept, and those between blended.
void scale_llama3(const rope_parameters& p, std::vector<double>& frequencies) {
  const auto original = static_cast<double>(p.original_context);
  for (double& frequency : frequencies) {
    const double wavelength = 2.0 * std::numbers::pi / frequency;
    const double slowed = frequency / p.factor;
    if (wavelength > original / p.low_freq_factor) {
      frequency = slowed;
    } else if (wavelength >= original / p.high_freq_factor) {
      const double kept =
          (original / wavelength - p.low_freq_factor) / (p.high_freq_factor - p.low_freq_factor);
      frequency = (1.0 - kept) * slowed + kept * frequency;
    }
  }
}

// Dimensions that turn fewer than beta_slow times over the original context are interpolated,
// those beyond beta_fast are kept, a ramp lies between.
void scale_yarn(const rope_parameters& p, int rotary_size, std::vector<double>& frequencies) {
  const auto dimension_turning = [&](double turns) {
    return rotary_size *
           std::log(static_cast<double>(p.original_context) / (turns * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(p.theta));
  };
  double low = dimension_turning(p.beta_fast);
  double high = dimension_turning(p.beta_slow);
  if (p.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, rotary_size - 1.0);
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] / p.factor * ramp + frequencies[i] * (1.0 - ramp);
  }
}

double yarn_attention_factor(const rope_parameters& p) {
  const auto scale = [&](double mscale) {
    return p.factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(p.factor) + 1.0;
  };
  if (p.attention_factor) return *p.attention_factor;
  if (p.mscale != 0.0 && p.mscale_all_dim != 0.0) return scale(p.mscale) / scale(p.mscale_all_dim);
  return scale(1.0);
}

double longrope_attention_factor(const rope_parameters& p) {
  if (p.attention_factor) return *p.attention_factor;
  if (p.factor <= 1.0) return 1.0;
  return std::sqrt(1.0 + std::log(p.factor) / std::log(static_cast<double>(p.original_context)));
}

std::vector<float> divided(const std::vector<double>& frequencies,
                           const std::vector<double>& factors) {
  std::vector<float> result(frequencies.size());
  for (std::size_t i = 0; i < result.size(); ++i)
    result[i] = static_cast<float>(factors.empty() ? frequencies[i] : frequencies[i] / factors[i]);
  return result;
}

result<void> check_factors(std::string_view name, const std::vector<double>& factors,
                           std::size_t wanted) {
  if (factors.size() != wanted)
    return refused(fmt::format("{} has {} numbers, {} are wanted", name, factors.size(), wanted));
  for (const double factor : factors)
    if (!(factor >= 1e-6 && factor <= 1e9))
      return refused(fmt::format("{} holds {}", name, factor));
  return {};
}

result<void> check(const rope_parameters& p, int rotary_size) {
  if (rotary_size <= 0 || rotary_size % 2 != 0)
    return refused(fmt::format("{} values of a head cannot be turned in pairs", rotary_size));
  if (!(p.theta > 1.0 && p.theta <= 1e12)) return refused(fmt::format("rope_theta is {}", p.theta));
  if (!(p.factor > 0.0 && p.factor <= 1e6)) return refused(fmt::format("factor is {}", p.factor));
  const bool scaled = p.type == "llama3" || p.type == "yarn" || p.type == "longrope";
  if (scaled && p.original_context <= 1)
    return refused(fmt::format("{} needs original_max_position_embeddings", p.type));
  if (p.type == "llama3" && !(p.low_freq_factor > 0.0 && p.high_freq_factor > p.low_freq_factor))
    return refused(fmt::format("low_freq_factor {} is not below high_freq_factor {}",
                               p.low_freq_factor, p.high_freq_factor));
  if (p.type == "yarn" && !(p.beta_slow > 0.0 && p.beta_fast > 0.0))
    return refused(fmt::format("beta_fast is {}, beta_slow {}", p.beta_fast, p.beta_slow));
  return {};
}

}  // namespace

result<rope_config> make_rope(const rope_parameters& p, int rotary_size) {
  if (auto good = check(p, rotary_size); !good) return good.error();
  rope_config rope;
  rope.rotary_size = rotary_size;
  auto frequencies = plain_frequencies(p.theta, rotary_size);
  if (!p.frequency_factor.empty())
    if (auto good = check_factors("rope_freqs", p.frequency_factor, frequencies.size()); !good)
      return good.error();

  if (p.type == "longrope") {
    for (const auto* factors : {&p.short_factor, &p.long_factor}) {
      const auto* name = factors == &p.short_factor ? "short_factor" : "long_factor";
      if (auto good = check_factors(name, *factors, frequencies.size()); !good) return good.error();
    }
    rope.inverse_frequency = divided(frequencies, p.short_factor);
    rope.long_inverse_frequency = divided(frequencies, p.long_factor);
    rope.original_context = p.original_context;
    rope.attention_factor = static_cast<float>(longrope_attention_factor(p));
    return rope;
  }
  if (p.type == "linear") {
    for (double& frequency : frequencies) frequency /= p.factor;
  } else if (p.type == "llama3") {
    scale_llama3(p, frequencies);
  } else if (p.type == "yarn") {
    scale_yarn(p, rotary_size, frequencies);
    rope.attention_factor = static_cast<float>(yarn_attention_factor(p));
  } else if (p.type != "default" && p.type != "dynamic") {
    // `dynamic` grows theta beyond the trained context only, and that is where contexts end here.
    return error{errc::unsupported,
                 fmt::format("rope: the scaling '{}' is not known (default, linear, llama3, yarn, "
                             "longrope and dynamic are)",
                             p.type),
                 {}};
  }
  rope.inverse_frequency = divided(frequencies, p.frequency_factor);
  return rope;
}

rope_config no_rope(int rotary_size) {
  rope_config rope;
  rope.rotary_size = rotary_size;
  rope.inverse_frequency.resize(static_cast<std::size_t>(rotary_size / 2));
  return rope;
}

}  // namespace tandem::model
