// Passes over one row of V logits. NaN counts as minus infinity everywhere. Written as plain loops
// over independent lanes, so that a compiler vectorizes them without reordering any sum: the same
// bits on every machine. Each pass reads V floats once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace tandem::serve {

struct peak {
  float value = 0.0F;    // minus infinity when nothing is finite
  std::uint32_t id = 0;  // the smallest with this value
};
peak largest(std::span<const float> logits_V);

// exp(x) for x <= 0 to 2 ulp; 0 below -87 and for NaN. Not libm's: those differ by version.
float exp_nonpositive(float x);

// sum_i exp(x_i - top)
double sum_of_exp(std::span<const float> logits_V, float top);

// weights_V[i] = exp((x_i - top) * inverse_temperature), 0 where that is below `least`, as the bits
// of a float.
void weigh(std::span<const float> logits_V, float top, float inverse_temperature, float least,
           std::span<std::uint32_t> weights_V);

// The ids of the `count` largest, best first, equal ones by id; fewer when fewer are above minus
// infinity. Costs a pass and a sort of little more than `count` while count is under V / 128.
std::vector<std::uint32_t> top_ids(std::span<const float> logits_V, std::size_t count);

// Zeroes every weight outside the smallest set of the largest logits that holds the share `top_p`
// of all weight; of equal logits the smaller ids stay. Buckets by distance from the top find where
// the cut falls, so only one bucket is ever sorted.
void keep_nucleus(std::span<const float> logits_V, float top, float inverse_temperature,
                  double top_p, std::span<std::uint32_t> weights_V);

// The id where the running sum of weights, in order of id, first exceeds u * total. u in [0, 1).
std::uint32_t draw(std::span<const std::uint32_t> weights_V, double u);

}  // namespace tandem::serve
