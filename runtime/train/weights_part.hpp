// One rank's part of the weights that full training made, in a serving format: of parameters that
// lie in the host's memory as a checkpoint has them, this rank's rows are packed, a matrix at a
// time. The numbers are those of a serving_copy.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/memory/ledger.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/result.hpp"
#include "runtime/train/named_tensors.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace tandem::train {

class weights_part {
 public:
  // Room for them in `book`. `device` must outlive it.
  static result<std::unique_ptr<weights_part>> reserve(kernels::backend& device,
                                                       const std::shared_ptr<memory::ledger>& book,
                                                       const model::model_config& config,
                                                       std::string_view format,
                                                       model::tensor_rank place,
                                                       std::uint64_t version);

  // The same number on every rank.
  std::size_t piece_count() const;
  // `parameters` are laid out as parameter_layout says.
  void write(std::size_t piece, std::span<const float> parameters);
  // Once every piece is written.
  std::shared_ptr<const model::weights> take();

 private:
  weights_part(kernels::backend& device, std::unique_ptr<imagined_load> imagined)
      : device_(device), imagined_(std::move(imagined)) {}

  std::vector<float> rows_of(const model::row_part& part, std::span<const float> parameters) const;
  void write_vectors(std::span<const float> parameters);
  void write_matrix(const model::matrix_load& load, std::span<const float> parameters);

  kernels::backend& device_;
  std::unique_ptr<kernels::backend> host_;  // reads the parameters
  std::unique_ptr<imagined_load> imagined_;
  std::map<std::string, named_tensor, std::less<>> tensors_;
};

}  // namespace tandem::train
