// A collective over NCCL: numbers go to all ranks as they are, by way of the room of rank_moves, in
// portions that fit it; each rank adds or places them itself.
#pragma once

#include "kernels/collective.hpp"
#include "kernels/cuda/nccl_communicator.hpp"
#include "kernels/cuda/rank_moves.hpp"

#include <memory>

namespace tandem::kernels::cuda {

class nccl_collective final : public collective {
 public:
  // `stream` is the device's.
  nccl_collective(backend& device, std::unique_ptr<rank_moves> moves,
                  std::unique_ptr<nccl_communicator> group, cudaStream_t stream);
  ~nccl_collective() override;
  nccl_collective(const nccl_collective&) = delete;
  nccl_collective& operator=(const nccl_collective&) = delete;

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  bool in_programs() const override { return true; }
  void gather_columns(rows_in part_TXr, std::span<const std::int64_t> columns_R,
                      rows_out whole_TX) override;
  void sum(rows_out x_TX) override;

  // One small operation of each kind, so that the connections are there.
  void meet();

 private:
  void gather_part(rows_in part_TXr, std::span<const std::int64_t> columns_R, rows_out whole_TX);

  backend& device_;
  std::unique_ptr<rank_moves> moves_;
  std::unique_ptr<nccl_communicator> group_;
  cudaStream_t stream_;
};

}  // namespace tandem::kernels::cuda
