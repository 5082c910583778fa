// Adapters of random numbers, and the dense weights that do the same.
#pragma once

#include "runtime/model/adapter.hpp"
#include "runtime/model/weights.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace tandem::test {

inline const std::vector<std::string>& every_target() {
  static const std::vector<std::string> all{"q_proj",   "k_proj",       "v_proj",
                                            "qkv_proj", "o_proj",       "gate_proj",
                                            "up_proj",  "gate_up_proj", "down_proj"};
  return all;
}

struct adapter_options {
  int rank = 4;
  double alpha = 8.0;
  std::vector<std::string> targets = every_target();
};

// Large enough to change what the model says.
inline std::shared_ptr<model::adapter> random_adapter(kernels::backend& device,
                                                      memory::ledger& book,
                                                      const model::model_config& config,
                                                      std::uint64_t seed,
                                                      const adapter_options& options = {}) {
  auto layout =
      model::adapter_layout::make(device, config, options.rank, options.alpha, options.targets);
  if (!layout) FAIL(layout.error().detail);
  auto made = model::adapter::reserve(device, book, config, *layout);
  if (!made) FAIL(made.error().detail);
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  const auto draw = [&](std::int64_t count, float size) {
    std::vector<float> numbers(static_cast<std::size_t>(count));
    for (auto& number : numbers) number = size * uniform(random);
    return numbers;
  };
  model::fill_adapter(device, (*made)->layers, *layout, [&](const model::adapter_module& m) {
    const float spread = 1.0F / std::sqrt(static_cast<float>(m.columns));
    return model::module_numbers{draw(m.rank * m.columns, spread), draw(m.rows * m.rank, 0.1F)};
  });
  return *std::move(made);
}

// Adds scale * B A of every module to these weights, which must be f32 and nobody else's.
inline void merge_into(kernels::backend& device, const model::weights& weights,
                       const model::adapter& adapter) {
  const auto source = [](const std::vector<float>& rows, std::int64_t first, std::int64_t count,
                         std::int64_t columns) {
    return kernels::row_source{kernels::source_format::f32,
                               reinterpret_cast<const std::byte*>(rows.data() + first * columns),
                               count,
                               {}};
  };
  for (const auto& module : adapter.layout.modules) {
    const auto& layer = weights.layers[static_cast<std::size_t>(module.layer)];
    const bool gated = module.product == 2;
    const auto& matrix = module.product == 0   ? layer.qkv_XD
                         : module.product == 1 ? layer.output_DX
                         : gated               ? layer.gate_up_FD
                                               : layer.down_DF;
    const auto columns = matrix.columns;
    const auto half = matrix.rows / 2;
    std::vector<float> dense(static_cast<std::size_t>(matrix.rows * columns));
    for (std::int64_t y = 0; y < matrix.rows; ++y) {
      auto* const row = dense.data() + y * columns;
      if (gated)
        device.unpack_gated_row(matrix, y >= half, y % half, row);
      else
        device.unpack_row(matrix, y, row);
    }
    const auto numbers = model::read_module(device, adapter.layers, module);
    for (std::int64_t y = 0; y < module.rows; ++y)
      for (std::int64_t x = 0; x < columns; ++x) {
        double sum = 0.0;
        for (std::int64_t r = 0; r < module.rank; ++r)
          sum += static_cast<double>(numbers.b[static_cast<std::size_t>(y * module.rank + r)]) *
                 static_cast<double>(numbers.a[static_cast<std::size_t>(r * columns + x)]);
        dense[static_cast<std::size_t>((module.first_row + y) * columns + x)] +=
            static_cast<float>(static_cast<double>(adapter.layout.scale) * sum);
      }
    if (gated)
      device.pack_gated(matrix, source(dense, 0, half, columns),
                        source(dense, half, half, columns));
    else
      device.pack(matrix, 0, source(dense, 0, matrix.rows, columns));
  }
}

}  // namespace tandem::test
