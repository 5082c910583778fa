// A file's rows as a packed format wants them before they are put in place, for every device.
#pragma once

#include "kernels/backend.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tandem::kernels::cpu {

// Bytes of a row as row_encoder gives it: as a file of that format has it; of fp8 a float32 scale
// for each 128 columns, then the numbers, padded with zeros to whole words.
std::int64_t encoded_row_bytes(weight_format format, std::int64_t columns);

// Whether fp8 can keep such a grid as it is: each 128 columns lie under one scale.
bool fits_fp8(const scale_grid& grid, std::int64_t columns);

// Keeps a row's buffers, so one encoder serves one thread.
class row_encoder {
 public:
  row_encoder(weight_format format, std::int64_t columns);

  // Row `row` of the source (of its order, when given); good until the next call. Formats that
  // agree are copied, others go through float32.
  const std::byte* encode(const row_source& source, std::int64_t row);

 private:
  void decode(const row_source& source, std::int64_t file_row, const std::byte* from);

  weight_format format_;
  std::int64_t columns_;
  std::vector<float> values_;
  std::vector<std::byte> encoded_;
};

}  // namespace tandem::kernels::cpu
