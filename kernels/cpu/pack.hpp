// From a file's rows to panels and back. The layouts are described in kernel_table.hpp.
#pragma once

#include "kernels/backend.hpp"
#include "kernels/cpu/row_encoder.hpp"

#include <vector>

namespace tandem::kernels::cpu {

struct panel_layout {
  std::int64_t panels = 0;  // an even number, so that gate and up panels can alternate
  std::int64_t panel_bytes = 0;
  std::int64_t blocks = 0;  // of 32 columns, with the padding of two-block records; 0 for floats

  static panel_layout of(weight_format format, std::int64_t rows, std::int64_t columns);
};

bool is_block_format(weight_format format);

// Where row r of `pack`ed matrix lies: panel r / 16, lane r % 16. A gated matrix alternates: row r
// of gate lies in panel 2 (r / 16), the same row of up in the panel behind it.
struct panel_place {
  std::int64_t panel = 0;
  int lane = 0;
};

// Re-encodes source rows to the target's format and puts each into its lane. One packer serves one
// thread.
class row_packer {
 public:
  explicit row_packer(const packed_matrix& target);

  // Row `row` of the source, of its order when it has one.
  void put(panel_place place, const row_source& source, std::int64_t row);
  void put_zeros(panel_place place);

 private:
  void put_encoded(panel_place place, const std::byte* row);
  void put_fp8(std::byte* panel, std::int64_t lane, const std::byte* row);

  packed_matrix target_;
  panel_layout layout_;
  row_encoder encoder_;
};

void unpack(const packed_matrix& source, panel_place place, float* out);

}  // namespace tandem::kernels::cpu
