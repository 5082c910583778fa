// Products of training in bfloat16: of numbers that bfloat16 holds they are what float32 makes.
#include "tests/cuda/training_pair.hpp"

#include <cstring>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

step_limits rounding_limits() {
  step_limits limits = training_limits();
  limits.rounded = true;
  limits.widest_output = 1344;
  limits.largest_matrix = 1344 * 1024;
  return limits;
}

floats held_by_bf16(floats values) {
  for (float& v : values) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &v, sizeof bits);
    bits &= 0xFFFF0000U;
    std::memcpy(&v, &bits, sizeof bits);
  }
  return values;
}

slice rounded_slice(randoms& random, std::int64_t rows, std::int64_t columns,
                    std::int64_t more = 5) {
  slice made(random, rows, columns, more);
  made.values = held_by_bf16(std::move(made.values));
  return made;
}

}  // namespace

TEST_CASE("a rounded product on a GPU is the CPU's of the same numbers, for any count of rows",
          "[gpu]") {
  auto gpu = gpu_device::open(rounding_limits());
  if (gpu == nullptr) return;
  for (const auto& [T, X, Y] : odd_shapes) {
    for (const bool add : {false, true}) {
      INFO("T=" << T << " X=" << X << " Y=" << Y << " add " << add);
      randoms random(41);
      const floats weights = held_by_bf16(random.values(Y * X));
      const floats bias = random.values(Y);
      const slice x = rounded_slice(random, T, X, add ? 4 : 5);
      const floats before = random.values(T * Y);
      test_device cpu(cpu::instruction_set::reference, 1, training_limits());
      floats truth = before;
      cpu->linear(x.on_cpu(), cpu.packed(weight_format::f32, Y, X, weights), bias.data(), add,
                  {truth.data(), T, Y});
      const packed_matrix w = gpu->packed(weight_format::f32, Y, X, weights);
      const float* const bias_there = gpu->put(bias);
      const rows_out y = gpu->rows(before, T, Y);
      (*gpu)->linear(x.on(*gpu), w, bias_there, add, y);
      const floats got = gpu->get(y);
      CHECK(worst_difference(got, truth) <= 5e-6);
      // One row alone.
      const rows_out alone = gpu->rows(floats(before.end() - Y, before.end()), 1, Y);
      const floats last(x.values.end() - x.stride, x.values.end());
      (*gpu)->linear({gpu->put(last), 1, X, x.stride}, w, bias_there, add, alone);
      CHECK(gpu->get(alone) == floats(got.end() - Y, got.end()));
    }
  }
}

TEST_CASE("a rounded product's input gradient on a GPU is the CPU's, in every weight format",
          "[gpu]") {
  auto gpu = gpu_device::open(rounding_limits());
  if (gpu == nullptr) return;
  for (const weight_format format : all_formats) {
    const bool exact = format == weight_format::f32 || format == weight_format::bf16;
    for (auto [T, X, Y] : odd_shapes) {
      if (is_block(format)) X = (X + 31) / 32 * 32;
      for (const bool add : {false, true}) {
        INFO(name_of(format) << " T=" << T << " X=" << X << " Y=" << Y << " add " << add);
        randoms random(42);
        const floats weights = held_by_bf16(random.values(Y * X, 0.1F));
        const slice dy = rounded_slice(random, T, Y, add ? 4 : 5);
        const floats before = random.values(T * X);
        test_device cpu(cpu::instruction_set::reference, 1, training_limits());
        floats truth = before;
        cpu->linear_backward_input(dy.on_cpu(), cpu.packed(format, Y, X, weights), add,
                                   {truth.data(), T, X});
        const packed_matrix w = gpu->packed(format, Y, X, weights);
        const rows_out dx = gpu->rows(before, T, X);
        (*gpu)->linear_backward_input(dy.on(*gpu), w, add, dx);
        const floats got = gpu->get(dx);
        CHECK(worst_difference(got, truth) <= (exact ? 5e-6 : 5e-3));
        const rows_out alone = gpu->rows(floats(before.end() - X, before.end()), 1, X);
        const floats last(dy.values.end() - dy.stride, dy.values.end());
        (*gpu)->linear_backward_input({gpu->put(last), 1, Y, dy.stride}, w, add, alone);
        CHECK(gpu->get(alone) == floats(got.end() - X, got.end()));
      }
    }
  }
}

TEST_CASE("a rounded product's weight gradient on a GPU is the CPU's, however many slots",
          "[gpu]") {
  auto gpu = gpu_device::open(rounding_limits());
  if (gpu == nullptr) return;
  for (const auto& [T, X, Y] : odd_shapes) {
    for (const std::size_t count : {1, 5, 64}) {
      INFO("T=" << T << " X=" << X << " Y=" << Y << ", slots " << count);
      randoms random(43);
      const slice dy = rounded_slice(random, T, Y), x = rounded_slice(random, T, X);
      const floats before = random.values(Y * X);
      std::vector<std::int64_t> rows;
      for (std::size_t i = 0; i < count; ++i) rows.push_back(random.below(50));
      const auto slots = slots_of(T, rows);
      test_device cpu(cpu::instruction_set::reference, 1, training_limits());
      const packed_matrix truth = cpu.packed(weight_format::f32, Y, X, before);
      cpu->linear_backward_weights(dy.on_cpu(), x.on_cpu(), slots, truth);
      packed_matrix dw = gpu->packed(weight_format::f32, Y, X, before);
      (*gpu)->linear_backward_weights(dy.on(*gpu), x.on(*gpu), slots, dw);
      CHECK(worst_difference(gpu->unpacked(dw), cpu.unpacked(truth)) <= 5e-6);
      dw.rows = (Y + 15) / 16 * 16;
      floats behind(static_cast<std::size_t>(X));
      for (std::int64_t r = Y; r < dw.rows; ++r) {
        (*gpu)->unpack_row(dw, r, behind.data());
        CHECK(behind == floats(behind.size(), 0.0F));
      }
    }
  }
}

TEST_CASE("rounded, too, slots of one device and of several give the same bits", "[gpu]") {
  auto gpu = gpu_device::open(rounding_limits());
  if (gpu == nullptr) return;
  const std::int64_t T = 300, X = 137, Y = 190;
  randoms random(44);
  const slice dy(random, T, Y), x(random, T, X);
  const rows_in dy_there = dy.on(*gpu), x_there = x.on(*gpu);
  const floats zero(static_cast<std::size_t>(Y * X), 0.0F);
  const auto weights_of = [&](std::span<const row_segment> slots) {
    return weights_backward_of(*gpu, dy_there, x_there, slots, zero);
  };
  std::vector<std::int64_t> counts;
  for (int i = 0; i < 32; ++i) counts.push_back(random.below(20));
  const auto slots = slots_of(T, counts);
  const std::span<const row_segment> all(slots);
  const std::function<floats(std::size_t, std::size_t)> tree = [&](std::size_t b, std::size_t e) {
    if (e - b <= 4) return weights_of(all.subspan(b, e - b));
    return sum_of(tree(b, (b + e) / 2), tree((b + e) / 2, e));
  };
  CHECK(weights_of(all) == tree(0, all.size()));
}
