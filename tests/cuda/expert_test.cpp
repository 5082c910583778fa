#include "tests/cuda/pair.hpp"

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

// Numbers of one expert: gate, up, down.
struct expert_numbers {
  floats gate, up, down;
};

std::vector<expert_numbers> some_experts(randoms& random, int count, std::int64_t D,
                                         std::int64_t F) {
  std::vector<expert_numbers> experts;
  for (int e = 0; e < count; ++e)
    experts.push_back(
        {random.values(F * D, 0.3F), random.values(F * D, 0.3F), random.values(D * F, 0.3F)});
  return experts;
}

template <class Device>
std::vector<expert_matrices> packed_on(Device& device, const std::vector<expert_numbers>& experts,
                                       weight_format format, std::int64_t D, std::int64_t F) {
  std::vector<expert_matrices> packed;
  for (const auto& e : experts)
    packed.push_back(
        {device.packed_gated(format, F, D, e.gate, e.up), device.packed(format, D, F, e.down)});
  return packed;
}

// Distinct experts for each row, the last of them for nobody.
std::vector<std::int32_t> some_routes(randoms& random, std::int64_t rows, int count, int experts) {
  std::vector<std::int32_t> ids;
  for (std::int64_t t = 0; t < rows; ++t) {
    const int first = random.below(experts - 1);
    for (int j = 0; j < count; ++j) ids.push_back((first + 2 * j) % (experts - 1));
  }
  return ids;
}

floats exact_numbers(randoms& random, std::int64_t count) {
  floats x(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(i % 32 == 5 ? 127 : random.below(255) - 127) / 128.0F;
  return x;
}

}  // namespace

TEST_CASE("a mixture on a GPU is the CPU's, and its bits are those of its experts alone", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  const int E = 8, count = 3;
  for (const weight_format format : all_formats) {
    const std::int64_t D = 64, F = is_block(format) ? 96 : 33;
    randoms random(17);
    const auto experts = some_experts(random, E, D, F);
    test_device cpu(cpu::instruction_set::reference, 1, training_limits());
    const auto cpu_experts = packed_on(cpu, experts, format, D, F);
    const auto gpu_experts = packed_on(*gpu, experts, format, D, F);
    for (const std::int64_t T : {1, 5, 9, 40, 200}) {
      INFO(name_of(format) << " T=" << T);
      const floats h = exact_numbers(random, T * D);
      auto ids = some_routes(random, T, count, E);
      floats weights = random.values(T * count);
      floats truth(static_cast<std::size_t>(T * D), 0.25F);
      cpu->moe({h.data(), T, D}, {count, ids.data(), weights.data()}, cpu_experts, activation::silu,
               {truth.data(), T, D});
      const moe_routes routes{count, gpu->put(ids), gpu->put(weights)};
      const rows_in h_there = gpu->rows(h, T, D);
      const rows_out x = gpu->rows(floats(truth.size(), 0.25F), T, D);
      (*gpu)->moe(h_there, routes, gpu_experts, activation::silu, x);
      const floats got = gpu->get(x);
      // What lies between is rounded as activations are.
      const double bound = format == weight_format::f32                                    ? 1e-5
                           : format == weight_format::f16                                  ? 5e-4
                           : format == weight_format::bf16 || format == weight_format::fp8 ? 4e-3
                                                                                           : 1e-2;
      CHECK(worst_difference(got, truth) <= bound);

      for (const std::int64_t t : {std::int64_t{0}, T - 1}) {
        floats expected(static_cast<std::size_t>(D), 0.25F);
        for (std::int32_t e = 0; e < E; ++e) {
          for (int j = 0; j < count; ++j) {
            const auto at = static_cast<std::size_t>(t * count + j);
            if (ids[at] != e) continue;
            const auto& expert = gpu_experts[static_cast<std::size_t>(e)];
            const rows_out middle = gpu->room_for(1, F), out = gpu->room_for(1, D);
            (*gpu)->linear_gated({h_there.row(t), 1, D}, expert.gate_up_FD, activation::silu,
                                 middle);
            (*gpu)->linear(middle, expert.down_DF, nullptr, false, out);
            const floats of_expert = gpu->get(out);
            for (std::size_t c = 0; c < expected.size(); ++c) {
              const float weighted = weights[at] * of_expert[c];
              expected[c] += weighted;
            }
          }
        }
        CHECK(floats(got.begin() + t * D, got.begin() + (t + 1) * D) == expected);
      }
    }
  }
}

TEST_CASE("more rows than go through the experts together give each row the same bits", "[gpu]") {
  step_limits limits = training_limits();
  limits.rows = 2'300;
  limits.training = false;
  auto gpu = gpu_device::open(limits);
  if (gpu == nullptr) return;
  const std::int64_t T = 2'300, D = 96, F = 64;
  const int E = 8, count = 2;
  for (const weight_format format : {weight_format::bf16, weight_format::q4_1}) {
    randoms random(18);
    const auto experts = packed_on(*gpu, some_experts(random, E, D, F), format, D, F);
    const floats h = random.values(T * D), weights = random.values(T * count);
    const auto ids = some_routes(random, T, count, E);
    const moe_routes routes{count, gpu->put(ids), gpu->put(weights)};
    const rows_in h_there = gpu->rows(h, T, D);
    const rows_out x = gpu->rows(floats(static_cast<std::size_t>(T * D), 0.0F), T, D);
    (*gpu)->moe(h_there, routes, experts, activation::gelu_tanh, x);
    const floats together = gpu->get(x);
    for (const auto& [first, rows] : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {0, 1}, {1'023, 2}, {2'299, 1}, {700, 30}, {2'000, 300}}) {
      INFO(name_of(format) << " rows " << first << " + " << rows);
      const rows_out alone = gpu->rows(floats(static_cast<std::size_t>(rows * D), 0.0F), rows, D);
      (*gpu)->moe({h_there.row(first), rows, D},
                  {count, routes.ids + first * count, routes.weights + first * count}, experts,
                  activation::gelu_tanh, alone);
      CHECK(gpu->get(alone) ==
            floats(together.begin() + first * D, together.begin() + (first + rows) * D));
    }
  }
}

TEST_CASE("a mixture's gradients on a GPU are the CPU's; an expert without rows gets none",
          "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  const int E = 5, count = 2;
  for (const auto& [T, D, F] :
       std::vector<std::array<std::int64_t, 3>>{{6, 9, 19}, {50, 64, 33}, {300, 96, 96}}) {
    INFO("T=" << T << " D=" << D << " F=" << F);
    randoms random(62);
    const auto experts = some_experts(random, E, D, F);
    const floats h = random.values(T * D), dy = random.values(T * D);
    auto ids = some_routes(random, T, count, E);
    floats weights = random.values(T * count);
    const std::vector<row_segment> slots{{0, 2}, {2, 1}, {3, 0}, {3, T - 3}};
    const floats zero(static_cast<std::size_t>(F * D), 0.0F);
    const std::vector<expert_numbers> zeros(E, {zero, zero, zero});

    test_device cpu(cpu::instruction_set::reference, 1, training_limits());
    const auto cpu_gradients = packed_on(cpu, zeros, weight_format::f32, D, F);
    floats truth(h.size()), truth_weights(weights.size());
    cpu->moe_backward({dy.data(), T, D}, {h.data(), T, D}, {count, ids.data(), weights.data()},
                      packed_on(cpu, experts, weight_format::f32, D, F), activation::silu, slots,
                      cpu_gradients, {truth.data(), T, D}, truth_weights.data());

    const auto gpu_experts = packed_on(*gpu, experts, weight_format::f32, D, F);
    const auto gpu_gradients = packed_on(*gpu, zeros, weight_format::f32, D, F);
    const moe_routes routes{count, gpu->put(ids), gpu->put(weights)};
    const rows_in dy_there = gpu->rows(dy, T, D), h_there = gpu->rows(h, T, D);
    const rows_out dh = gpu->room_for(T, D), dweights = gpu->room_for(T, count);
    (*gpu)->moe_backward(dy_there, h_there, routes, gpu_experts, activation::silu, slots,
                         gpu_gradients, dh, dweights.data);
    CHECK(worst_difference(gpu->get(dh), truth) <= 2e-5);
    CHECK(worst_difference(gpu->get(dweights), truth_weights) <= 2e-5);
    for (std::size_t e = 0; e < E; ++e) {
      INFO("expert " << e);
      CHECK(worst_difference(gpu->unpacked(gpu_gradients[e].down_DF),
                             cpu.unpacked(cpu_gradients[e].down_DF)) <= 2e-5);
      floats got, expected;
      floats row(static_cast<std::size_t>(D));
      for (std::int64_t f = 0; f < 2 * F; ++f) {
        (*gpu)->unpack_gated_row(gpu_gradients[e].gate_up_FD, f >= F, f % F, row.data());
        got.insert(got.end(), row.begin(), row.end());
        cpu->unpack_gated_row(cpu_gradients[e].gate_up_FD, f >= F, f % F, row.data());
        expected.insert(expected.end(), row.begin(), row.end());
      }
      CHECK(worst_difference(got, expected) <= 2e-5);
    }
    // Frozen experts change nothing else.
    const rows_out frozen = gpu->room_for(T, D), frozen_weights = gpu->room_for(T, count);
    (*gpu)->moe_backward(dy_there, h_there, routes, gpu_experts, activation::silu, slots, {},
                         frozen, frozen_weights.data);
    CHECK(gpu->get(frozen) == gpu->get(dh));
    CHECK(gpu->get(frozen_weights) == gpu->get(dweights));
  }
}
