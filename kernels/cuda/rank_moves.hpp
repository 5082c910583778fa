// What a rank does by itself with the numbers that came from all: on the GPU (rank_moves.cu).
#pragma once

#include "kernels/backend.hpp"

#include <cstdint>
#include <memory>
#include <span>

namespace tandem::kernels::cuda {

class cuda_device;

class rank_moves {
 public:
  virtual ~rank_moves() = default;

  // Where numbers of all ranks come to lie, in the device's memory.
  virtual std::span<float> room() = 0;
  // A program that runs again has these moves already: nothing is to be asked for.
  virtual bool remembered() const = 0;
  // `room` holds one matrix after the other of whole_TX's rows and columns_R[r] columns; they come
  // to stand side by side.
  virtual void place(std::span<const std::int64_t> columns_R, rows_out whole_TX) = 0;
  // `room` holds `ranks` matrices of x's shape; x becomes their sum, by rank_sum.
  virtual void add(int ranks, rows_out x_TX) = 0;
};

// On the device's stream, with room of so many bytes; null when the GPU's memory has no such room.
std::unique_ptr<rank_moves> moves_on(cuda_device& device, std::size_t bytes);

}  // namespace tandem::kernels::cuda
