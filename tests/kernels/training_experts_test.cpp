#include "tests/kernels/differences.hpp"

#include <catch2/catch.hpp>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

TEST_CASE("routing's gradient is its central differences, renormalized or not") {
  const std::int64_t T = 5, E = 7;
  const int count = 3;
  randoms random(61);
  const floats logits = random.values(T * E, 2.0F), dweights = random.values(T * count);
  for (const bool normalize : {false, true}) {
    for (const auto set : cpu::supported_instruction_sets()) {
      INFO(name_of(set) << " normalize " << normalize);
      test_device device(set, 2, training_limits());
      std::vector<std::int32_t> ids(static_cast<std::size_t>(T * count));
      floats weights(ids.size());
      const moe_routes routes{count, ids.data(), weights.data()};
      device->moe_route({logits.data(), T, E}, normalize, routes);
      const auto forward = [&](const doubles& v) {
        doubles chosen;
        for (std::size_t t = 0; t < T; ++t) {
          double all = 0.0, some = 0.0;
          for (std::size_t e = 0; e < E; ++e) all += std::exp(v[t * E + e]);
          const auto value = [&](std::size_t j) {
            return std::exp(v[t * E + static_cast<std::size_t>(ids[t * count + j])]);
          };
          for (std::size_t j = 0; j < count; ++j) some += value(j);
          for (std::size_t j = 0; j < count; ++j)
            chosen.push_back(value(j) / (normalize ? some : all));
        }
        return chosen;
      };
      exactness exact(differences(widened(logits), dweights, forward));
      floats dlogits(logits.size(), -7.0F);
      device->moe_route_backward({logits.data(), T, E}, normalize, routes, dweights.data(),
                                 {dlogits.data(), T, E});
      CHECK(exact.holds(cpu::instruction_set::reference, dlogits));
    }
  }
}

TEST_CASE("a mixture's gradients are its central differences; an expert without rows gets none") {
  const std::int64_t T = 6, D = 9, F = 19, E = 4;
  const int count = 2;
  randoms random(62);
  const floats h = random.values(T * D), dy = random.values(T * D);
  std::vector<floats> gate, up, down;
  for (int e = 0; e < E; ++e) {
    gate.push_back(random.values(F * D));
    up.push_back(random.values(F * D));
    down.push_back(random.values(D * F));
  }
  // Nobody asks expert 2.
  std::vector<std::int32_t> ids{0, 1, 1, 3, 3, 0, 0, 3, 1, 0, 3, 1};
  floats weights = random.values(T * count);
  const moe_routes routes{count, ids.data(), weights.data()};

  // Inputs in one row: h, weights, then each expert's gate, up and down.
  floats all = h;
  all.insert(all.end(), weights.begin(), weights.end());
  for (std::size_t e = 0; e < E; ++e) {
    for (const floats* m : {&gate[e], &up[e], &down[e]})
      all.insert(all.end(), m->begin(), m->end());
  }
  const auto forward = [&](const doubles& v) {
    doubles y(static_cast<std::size_t>(T * D), 0.0);
    const double* w = v.data() + T * D;
    const double* matrices = w + T * count;
    for (std::int64_t t = 0; t < T; ++t) {
      for (int j = 0; j < count; ++j) {
        const double* expert = matrices + ids[static_cast<std::size_t>(t * count + j)] * 3 * F * D;
        for (std::int64_t f = 0; f < F; ++f) {
          double g = 0.0, u = 0.0;
          for (std::int64_t i = 0; i < D; ++i) {
            const double x = v[static_cast<std::size_t>(t * D + i)];
            g += x * expert[f * D + i];
            u += x * expert[F * D + f * D + i];
          }
          const double hidden = g / (1.0 + std::exp(-g)) * u * w[t * count + j];
          for (std::int64_t i = 0; i < D; ++i) {
            y[static_cast<std::size_t>(t * D + i)] += hidden * expert[2 * F * D + i * F + f];
          }
        }
      }
    }
    return y;
  };
  exactness exact(differences(widened(all), dy, forward));

  const std::vector<row_segment> slots{{0, 2}, {2, 1}, {3, 0}, {3, 3}};
  for (const auto set : cpu::supported_instruction_sets()) {
    floats first;
    for (const int threads : {1, 2}) {
      INFO(name_of(set) << " threads " << threads);
      test_device device(set, threads, training_limits());
      std::vector<expert_matrices> experts, gradients;
      const floats zero(static_cast<std::size_t>(F * D), 0.0F);
      for (std::size_t e = 0; e < E; ++e) {
        experts.push_back({device.packed_gated(weight_format::f32, F, D, gate[e], up[e]),
                           device.packed(weight_format::f32, D, F, down[e])});
        gradients.push_back(
            {device.packed_gated(weight_format::f32, F, D, zero, zero), device.gradient(D, F)});
      }
      floats got(static_cast<std::size_t>(T * D), -7.0F);
      floats dweights(weights.size(), -7.0F);
      device->moe_backward({dy.data(), T, D}, {h.data(), T, D}, routes, experts, activation::silu,
                           slots, gradients, {got.data(), T, D}, dweights.data());
      floats frozen(got.size(), -7.0F), frozen_weights(weights.size(), -7.0F);
      device->moe_backward({dy.data(), T, D}, {h.data(), T, D}, routes, experts, activation::silu,
                           slots, {}, {frozen.data(), T, D}, frozen_weights.data());
      CHECK(frozen == got);
      CHECK(frozen_weights == dweights);
      got.insert(got.end(), dweights.begin(), dweights.end());
      for (const expert_matrices& expert : gradients) {
        for (const bool is_up : {false, true}) {
          for (std::int64_t f = 0; f < F; ++f) {
            floats row(static_cast<std::size_t>(D));
            device->unpack_gated_row(expert.gate_up_FD, is_up, f, row.data());
            got.insert(got.end(), row.begin(), row.end());
          }
        }
        const floats rows = device.unpacked(expert.down_DF);
        got.insert(got.end(), rows.begin(), rows.end());
      }
      CHECK(exact.holds(set, got));
      if (threads == 1) first = got;
      CHECK(got == first);
    }
  }
}
