// Numbers that came from all ranks are put side by side, or added. Each is read once and written
// once; to be matched: the plain loops in tests/nccl/nccl_test.cpp.
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/rank_moves.hpp"
#include "kernels/ensure.hpp"
#include "kernels/rank_sum.hpp"

#include <algorithm>

namespace tandem::kernels::cuda {
namespace {

struct rank_columns {
  std::int64_t first[most_ranks + 1];
};

__global__ void placed(const float* room, rank_columns columns, rows_out whole) {
  const std::int64_t first = columns.first[blockIdx.y];
  const std::int64_t count = columns.first[blockIdx.y + 1] - first;
  const float* const from = room + first * whole.rows + blockIdx.x * count;
  float* const to = whole.row(blockIdx.x) + first;
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) to[i] = from[i];
}

__global__ void added_ranks(const float* room, int ranks, rows_out x) {
  const std::int64_t count = x.rows * x.columns;
  const float* const from = room + blockIdx.x * x.columns;
  float* const to = x.row(blockIdx.x);
  for (std::int64_t i = std::int64_t{blockIdx.y} * blockDim.x + threadIdx.x; i < x.columns;
       i += std::int64_t{gridDim.y} * blockDim.x)
    to[i] = rank_sum(from + i, ranks, count);
}

class gpu_moves final : public rank_moves {
 public:
  gpu_moves(cuda_device& device, std::span<std::byte> memory) : device_(device), memory_(memory) {}
  ~gpu_moves() override {
    device_.finish();
    release(device_.gpu(), memory_);
  }
  gpu_moves(const gpu_moves&) = delete;
  gpu_moves& operator=(const gpu_moves&) = delete;

  std::span<float> room() override {
    return {reinterpret_cast<float*>(memory_.data()), memory_.size() / sizeof(float)};
  }
  bool remembered() const override { return device_.refilling(); }

  void place(std::span<const std::int64_t> columns_R, rows_out whole_TX) override {
    ensure(columns_R.size() <= most_ranks, "no more ranks than can be");
    rank_columns columns{};
    for (std::size_t r = 0; r < columns_R.size(); ++r)
      columns.first[r + 1] = columns.first[r] + columns_R[r];
    const dim3 grid(static_cast<unsigned>(whole_TX.rows), static_cast<unsigned>(columns_R.size()));
    placed<<<grid, 256, 0, device_.stream()>>>(room().data(), columns, whole_TX);
    launched("gather_columns", whole_TX.rows, whole_TX.columns);
  }

  void add(int ranks, rows_out x_TX) override {
    ensure(ranks <= most_ranks, "no more ranks than can be");
    const auto blocks = std::min<std::int64_t>((x_TX.columns + 255) / 256, 64);
    const dim3 grid(static_cast<unsigned>(x_TX.rows), static_cast<unsigned>(blocks));
    added_ranks<<<grid, 256, 0, device_.stream()>>>(room().data(), ranks, x_TX);
    launched("sum", x_TX.rows, x_TX.columns);
  }

 private:
  cuda_device& device_;
  std::span<std::byte> memory_;
};

}  // namespace

std::unique_ptr<rank_moves> moves_on(cuda_device& device, std::size_t bytes) {
  const auto memory = allocate(device.gpu(), bytes);
  if (memory.empty()) return nullptr;
  return std::make_unique<gpu_moves>(device, memory);
}

}  // namespace tandem::kernels::cuda
