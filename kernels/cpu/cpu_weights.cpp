// Packing at load and reading rows back.
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/pack.hpp"
#include "kernels/op_checks.hpp"

#include <algorithm>
#include <array>
#include <vector>

namespace tandem::kernels::cpu {

bool cpu_device::can_pack(weight_format format, std::int64_t columns) const {
  return columns > 0 && (!is_block_format(format) || columns % block_columns == 0);
}

void cpu_device::pack(const packed_matrix& target, std::int64_t first_row,
                      const row_source& source) {
  require(checks::pack(target, first_row, source));
  // The last rows bring the zeros of the lanes behind them.
  const bool last = first_row + source.rows == target.rows;
  const std::int64_t padded =
      panel_layout::of(target.format, target.rows, 32).panels * panel_outputs;
  const std::int64_t end_row = last ? padded : first_row + source.rows;

  const std::int64_t first_panel = first_row / panel_outputs;
  const std::int64_t panels = (end_row + panel_outputs - 1) / panel_outputs - first_panel;
  for_ranges(panels, true, [&](std::int64_t begin, std::int64_t end) {
    row_packer packer(target);
    const std::int64_t from = std::max(first_row, (first_panel + begin) * panel_outputs);
    const std::int64_t to = std::min(end_row, (first_panel + end) * panel_outputs);
    for (std::int64_t row = from; row < to; ++row) {
      const panel_place place{row / panel_outputs, static_cast<int>(row % panel_outputs)};
      if (row < target.rows) {
        packer.put(place, source, row - first_row);
      } else {
        packer.put_zeros(place);
      }
    }
  });
}

void cpu_device::pack_gated(const packed_matrix& target, const row_source& gate,
                            const row_source& up) {
  require(checks::pack_gated(target, gate, up));
  const std::array<const row_source*, 2> halves{&gate, &up};
  const std::int64_t pairs = panel_layout::of(target.format, target.rows, 32).panels / 2;
  for_ranges(pairs, true, [&](std::int64_t begin, std::int64_t end) {
    row_packer packer(target);
    for (std::int64_t row = begin * panel_outputs; row < end * panel_outputs; ++row) {
      for (std::size_t half = 0; half < 2; ++half) {
        const panel_place place{2 * (row / panel_outputs) + static_cast<std::int64_t>(half),
                                static_cast<int>(row % panel_outputs)};
        const row_source& source = *halves[half];
        if (row < source.rows) {
          packer.put(place, source, row);
        } else {
          packer.put_zeros(place);
        }
      }
    }
  });
}

void cpu_device::repack(const packed_matrix& f32, std::int64_t first_row, std::int64_t rows,
                        const packed_matrix& target) {
  require(checks::repack(f32, first_row, rows, target));
  for_ranges(
      (rows + panel_outputs - 1) / panel_outputs, true, [&](std::int64_t begin, std::int64_t end) {
        row_packer packer(target);
        std::vector<float> row(static_cast<std::size_t>(f32.columns));
        const std::int64_t last = std::min(rows, end * panel_outputs);
        for (std::int64_t r = begin * panel_outputs; r < last; ++r) {
          const panel_place place{(first_row + r) / panel_outputs,
                                  static_cast<int>(r % panel_outputs)};
          unpack(f32, place, row.data());
          packer.put(place,
                     {source_format::f32, reinterpret_cast<const std::byte*>(row.data()), 1, {}},
                     0);
        }
      });
}

void cpu_device::unpack_row(const packed_matrix& source, std::int64_t row, float* out) const {
  require(checks::unpack_row(source, row));
  unpack(source, {row / panel_outputs, static_cast<int>(row % panel_outputs)}, out);
}

}  // namespace tandem::kernels::cpu
