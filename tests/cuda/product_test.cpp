// Products on a GPU beside the plain CPU's. Activations are exact in eight bits unless a test says
// otherwise: then rounding them to sixteen or to int8 changes nothing, and what is compared is the
// sum. Tensor cores cut what they add up, an unbiased float32 chain rounds: hence the bounds.
#include "tests/cuda/pair.hpp"

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

struct shape {
  std::int64_t T, K, N;
};

step_limits wide_limits(std::int64_t rows = 700) {
  step_limits limits = training_limits();
  limits.rows = rows;
  limits.experts = 0;
  limits.widest_input = 14'336;
  return limits;
}

// Whole numbers / 128 with a 127 in each block of 32.
floats exact_numbers(randoms& random, std::int64_t count) {
  floats x(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(i % 32 == 5 ? 127 : random.below(255) - 127) / 128.0F;
  return x;
}

double bound_of(weight_format format) { return format == weight_format::f32 ? 5e-6 : 3e-5; }

floats gpu_product(gpu_device& gpu, const packed_matrix& w, const floats& x, std::int64_t rows) {
  const rows_out y = gpu.room_for(rows, w.rows);
  gpu->linear(gpu.rows(x, rows, w.columns), w, nullptr, false, y);
  return gpu.get(y);
}
floats cpu_product(test_device& cpu, const packed_matrix& w, const floats& x, std::int64_t rows) {
  floats y(static_cast<std::size_t>(rows * w.rows));
  cpu->linear({x.data(), rows, w.columns}, w, nullptr, false, {y.data(), rows, w.rows});
  return y;
}
floats part(const floats& x, std::int64_t first, std::int64_t count, std::int64_t columns) {
  return {x.begin() + first * columns, x.begin() + (first + count) * columns};
}

}  // namespace

TEST_CASE("a product on a GPU is the CPU's in every format and odd size", "[gpu]") {
  auto gpu = gpu_device::open(wide_limits());
  if (gpu == nullptr) return;
  for (const weight_format format : all_formats) {
    for (const auto& [T, K, N] : std::vector<shape>{{1, 1, 1},
                                                    {3, 31, 33},
                                                    {31, 33, 31},
                                                    {7, 48, 1000},
                                                    {64, 96, 48},
                                                    {1, 576, 960},
                                                    {5, 1536, 576},
                                                    {12, 576, 300},
                                                    {20, 64, 96},
                                                    {40, 96, 300},
                                                    {70, 576, 192},
                                                    {150, 256, 130},
                                                    {1, 4096, 256},
                                                    {2, 14336, 64},
                                                    {130, 1024, 272}}) {
      const std::int64_t columns = is_block(format) ? (K + 31) / 32 * 32 : K;
      INFO(name_of(format) << " T=" << T << " K=" << columns << " N=" << N);
      randoms random(7);
      const floats weights = random.values(N * columns, 0.1F);
      const floats x = exact_numbers(random, T * columns);
      test_device cpu(cpu::instruction_set::reference, 1, wide_limits(160));
      const floats truth = cpu_product(cpu, cpu.packed(format, N, columns, weights), x, T);
      const floats y = gpu_product(*gpu, gpu->packed(format, N, columns, weights), x, T);
      CHECK(worst_difference(y, truth) <= bound_of(format));
    }
  }
}

TEST_CASE("a row's product on a GPU has the same bits alone and in any batch", "[gpu]") {
  auto gpu = gpu_device::open(wide_limits());
  if (gpu == nullptr) return;
  for (const weight_format format : all_formats) {
    for (const auto& [K, N] : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {64, 96}, {161, 75}, {576, 960}, {1536, 576}, {4096, 272}}) {
      const std::int64_t columns = is_block(format) ? (K + 31) / 32 * 32 : K;
      randoms random(3);
      const packed_matrix w = gpu->packed(format, N, columns, random.values(N * columns));
      const floats x = random.values(700 * columns);
      const floats together = gpu_product(*gpu, w, x, 700);
      CHECK(gpu_product(*gpu, w, x, 700) == together);
      for (const std::int64_t T : {1, 2, 4, 7, 8, 9, 16, 17, 32, 33, 64, 65, 130, 300}) {
        const std::int64_t first = T == 1 ? 699 : 700 - 2 * T < 0 ? 0 : 700 - 2 * T;
        INFO(name_of(format) << " K=" << columns << " N=" << N << " rows " << first << " + " << T);
        CHECK(gpu_product(*gpu, w, part(x, first, T, columns), T) == part(together, first, T, N));
      }
    }
  }
}

// Enough outputs and rows for the large tiles.
TEST_CASE("large products on a GPU have the bits of small ones", "[gpu]") {
  auto gpu = gpu_device::open(wide_limits());
  if (gpu == nullptr) return;
  const std::int64_t K = 512, N = 8200, T = 640;
  for (const weight_format format : all_formats) {
    randoms random(4);
    const packed_matrix w = gpu->packed(format, N, K, random.values(N * K));
    const floats x = random.values(T * K);
    const floats together = gpu_product(*gpu, w, x, T);
    for (const std::int64_t first : {0, 5, 127, 128, 639}) {
      INFO(name_of(format) << " row " << first);
      CHECK(gpu_product(*gpu, w, part(x, first, 1, K), 1) == part(together, first, 1, N));
    }
  }
}

TEST_CASE("a GPU rounds activations to the weights' sixteen bits, or to int8 as the CPU does",
          "[gpu]") {
  auto gpu = gpu_device::open(wide_limits());
  if (gpu == nullptr) return;
  for (const weight_format format : all_formats) {
    for (const std::int64_t T : {1, 20, 100}) {
      INFO(name_of(format) << " T=" << T);
      randoms random(11);
      const floats weights = random.values(48 * 576, 0.1F);
      const floats x = random.values(T * 576);
      test_device cpu(cpu::instruction_set::reference, 1, wide_limits(160));
      const floats truth = cpu_product(cpu, cpu.packed(format, 48, 576, weights), x, T);
      // Half a unit of eight bits, or of eleven, in each of many terms of either sign.
      const double bound = format == weight_format::f16 ? 3e-4
                           : format == weight_format::bf16 || format == weight_format::fp8
                               ? 2e-3
                               : bound_of(format);
      CHECK(worst_difference(gpu_product(*gpu, gpu->packed(format, 48, 576, weights), x, T),
                             truth) <= bound);
    }
  }
}

TEST_CASE("a GPU's product keeps zeros, huge and tiny activations finite", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  for (const weight_format format : all_formats) {
    randoms random(2);
    const packed_matrix w = gpu->packed(format, 16, 64, random.values(16 * 64));
    for (const std::int64_t T : {1, 20, 80}) {
      INFO(name_of(format) << " T=" << T);
      CHECK(
          worst_difference(gpu_product(*gpu, w, floats(static_cast<std::size_t>(64 * T), 0.0F), T),
                           floats(static_cast<std::size_t>(16 * T), 0.0F)) == 0.0);
      for (const float x : {1e-38F, 1e-31F, 1e30F}) {
        for (const float y : gpu_product(*gpu, w, floats(static_cast<std::size_t>(64 * T), x), T))
          CHECK(std::isfinite(y));
      }
    }
  }
}

TEST_CASE("on a GPU bias and sum onto what is there reach only the outputs that exist", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  const std::int64_t K = 64, N = 21, stride = 24, x_stride = 71;
  for (const weight_format format : all_formats) {
    for (const std::int64_t T : {3, 12, 100}) {
      randoms random(9);
      const floats weights = random.values(N * K), bias = random.values(N);
      const floats x = exact_numbers(random, T * x_stride);
      const floats before = random.values(T * stride);
      test_device cpu(cpu::instruction_set::reference, 1, training_limits());
      floats truth = before;
      cpu->linear({x.data(), T, K, x_stride}, cpu.packed(format, N, K, weights), bias.data(), true,
                  {truth.data(), T, N, stride});
      float* const y = gpu->put(before);
      (*gpu)->linear({gpu->put(x), T, K, x_stride}, gpu->packed(format, N, K, weights),
                     gpu->put(bias), true, {y, T, N, stride});
      const floats got = gpu->get(y, T * stride);
      INFO(name_of(format) << " T=" << T);
      CHECK(worst_difference(got, truth) <= bound_of(format));
      for (std::int64_t i = 0; i < T * stride; ++i) {
        if (i % stride >= N)
          REQUIRE(got[static_cast<std::size_t>(i)] == before[static_cast<std::size_t>(i)]);
      }
    }
  }
}

TEST_CASE("a gated product on a GPU is the CPU's, with the same bits alone and together", "[gpu]") {
  auto gpu = gpu_device::open(wide_limits());
  if (gpu == nullptr) return;
  for (const activation act : {activation::silu, activation::gelu_tanh}) {
    for (const weight_format format : all_formats) {
      for (const std::int64_t F : {1, 31, 96, 1536}) {
        const std::int64_t D = F == 1536 ? 576 : 64;
        randoms random(21);
        const floats gate = random.values(F * D, 0.5F), up = random.values(F * D, 0.5F);
        const floats x = exact_numbers(random, 300 * D);
        test_device cpu(cpu::instruction_set::reference, 1, wide_limits(160));
        floats truth(static_cast<std::size_t>(5 * F));
        cpu->linear_gated({x.data(), 5, D}, cpu.packed_gated(format, F, D, gate, up), act,
                          {truth.data(), 5, F});
        const packed_matrix w = gpu->packed_gated(format, F, D, gate, up);
        const auto gated = [&](const floats& rows, std::int64_t T) {
          const rows_out y = gpu->room_for(T, F);
          (*gpu)->linear_gated(gpu->rows(rows, T, D), w, act, y);
          return gpu->get(y);
        };
        INFO(name_of(format) << " F=" << F);
        const floats five = gated(part(x, 0, 5, D), 5);
        CHECK(worst_difference(five, truth) <= 2.0 * bound_of(format));
        const floats together = gated(x, 300);
        CHECK(part(together, 0, 5, F) == five);
        for (const std::int64_t T : {1, 9, 17, 40, 70})
          CHECK(gated(part(x, 300 - T, T, D), T) == part(together, 300 - T, T, F));
      }
    }
  }
}

TEST_CASE("rows of a matrix and a gated matrix used as linear are the same memory on a GPU",
          "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  const std::int64_t F = 33, D = 64, T = 7;
  randoms random(35);
  const floats gate = random.values(F * D), up = random.values(F * D), x = random.values(T * D);
  for (const weight_format format : all_formats) {
    INFO(name_of(format));
    const packed_matrix w = gpu->packed(format, F, D, gate);
    const floats whole = gpu_product(*gpu, w, x, T);
    const floats some = gpu_product(*gpu, (*gpu)->rows_of(w, 16, 17), x, T);
    for (std::size_t t = 0; t < 7; ++t) {
      for (std::size_t i = 0; i < 17; ++i) REQUIRE(some[t * 17 + i] == whole[t * 33 + 16 + i]);
    }
    const packed_matrix gated = gpu->packed_gated(format, F, D, gate, up);
    const floats both = gpu_product(*gpu, (*gpu)->gated_as_linear(gated), x, T);
    const floats ups = gpu_product(*gpu, gpu->packed(format, F, D, up), x, T);
    for (std::size_t t = 0; t < 7; ++t) {
      for (std::size_t f = 0; f < 33; ++f) {
        REQUIRE(both[t * 96 + f / 16 * 32 + f % 16] == whole[t * 33 + f]);
        REQUIRE(both[t * 96 + f / 16 * 32 + 16 + f % 16] == ups[t * 33 + f]);
      }
    }
  }
}
