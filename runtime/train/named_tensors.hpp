// Where the numbers of full training lie: the parameter arena's layout, worked out from a model's
// config alone, and the same numbers under the names and shapes of Hugging Face's files. Masters,
// gradients and moments are arenas of this one layout.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/model/load_plan.hpp"
#include "runtime/model/model_config.hpp"
#include "runtime/result.hpp"
#include "runtime/train/trainer.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace tandem::train {

// One tensor as a Hugging Face checkpoint of this family has it.
struct named_tensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::int64_t rows = 1;  // a vector is one row
  std::int64_t columns = 0;
  // Masters hold what a file stores plus `added` (1 for Gemma's norms), times `factor` (Granite's
  // final norm).
  float added = 0.0F;
  float factor = 1.0F;

  // In the arena: a whole packed matrix that this tensor is some rows of, or the vector itself.
  std::size_t first_float = 0;
  std::int64_t packed_rows = 0;  // 0: a vector
  std::int64_t first_row = 0;    // of a gated matrix: up's rows come after gate's
  bool gated = false;
};

struct parameter_layout {
  std::vector<parameter> parameters;  // one for each packed matrix and vector; they tile the arena
  std::vector<named_tensor> tensors;  // in the same order
  std::size_t floats = 0;

  // Of several ranks one's: its rows of every matrix, of the embedding too.
  static result<parameter_layout> make(const kernels::backend& device,
                                       const model::model_config& config,
                                       model::tensor_rank place = {});
};

// Row `row` of the tensor as the arena has it; `out` has tensor.columns floats.
void read_row(const kernels::backend& device, const named_tensor& tensor,
              std::span<const float> arena, std::int64_t row, float* out);
// A row of parameters (not of gradients) as a file stores it.
void as_in_file(const named_tensor& tensor, float* row);

// What loading this model from float32 Hugging Face files into `format` would pack, with no files
// there: names, places and formats; of several ranks, one's. The plan points into `files`.
struct imagined_load {
  model::tensor_set files;
  model::load_plan plan;
};
result<std::unique_ptr<imagined_load>> imagine_load(
    const kernels::backend& device, const model::model_config& config, model::load_format format,
    model::tensor_rank place = {}, model::table_rows embedding = model::table_rows::whole);

}  // namespace tandem::train
