// One rank on a GPU, over the real library: NCCL refuses two on one. What ranks do by themselves is
// held against plain loops with numbers of several.
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/nccl.hpp"
#include "kernels/cuda/rank_moves.hpp"
#include "kernels/rank_sum.hpp"
#include "tests/cuda/pair.hpp"

#include <array>
#include <numeric>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

// Nothing where there is no GPU, or no NCCL.
std::unique_ptr<gpu_device> open_with_nccl() {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return nullptr;
  if (const auto facts = cuda::nccl_survey(); !facts.why_not.empty()) {
    WARN("no NCCL here, not run: " << facts.why_not);
    return nullptr;
  }
  return gpu;
}

}  // namespace

TEST_CASE("what one rank gathers and adds is its own, eagerly and in programs", "[gpu]") {
  auto gpu = open_with_nccl();
  if (gpu == nullptr) return;
  auto group = cuda::make_nccl_group(std::array{&**gpu});
  INFO(group.why_not);
  REQUIRE(group.ranks.size() == 1);
  auto& rank = *group.ranks[0];
  CHECK(rank.size() == 1);
  randoms random(1);
  const std::int64_t T = 33;
  const std::int64_t D = 577;
  const auto values = random.values(T * D);
  const auto x = gpu->rows(values, T, D);
  const auto y = gpu->room_for(T, D);
  const std::array<std::int64_t, 1> columns{D};
  rank.gather_columns(x, columns, y);
  CHECK(gpu->get(y) == values);
  rank.sum(y);
  CHECK(gpu->get(y) == values);
  // The third step of a shape is remembered, the ones after it only run.
  for (int i = 0; i < 5; ++i) {
    const auto more = random.values(T * D);
    (*gpu)->write(std::as_bytes(std::span(more)), reinterpret_cast<std::byte*>(x.data));
    const bool program = (*gpu)->begin_program({.rows = T, .positions = 16});
    CHECK(program == (i >= 2));
    rank.sum(x);
    rank.gather_columns(x, columns, y);
    if (program) (*gpu)->end_program();
    CHECK(gpu->get(y) == more);
  }
  // More than its room holds.
  const std::int64_t wide = 3'000'000;
  const auto many = random.values(2 * wide);
  const auto big = gpu->rows(many, 2, wide);
  rank.sum(big);
  CHECK(gpu->get(big) == many);
  group.ranks.clear();
}

TEST_CASE("two ranks on one GPU are refused in one line", "[gpu]") {
  auto gpu = open_with_nccl();
  if (gpu == nullptr) return;
  const auto group = cuda::make_nccl_group(std::array{&**gpu, &**gpu});
  CHECK(group.ranks.empty());
  CHECK(group.why_not == "two ranks on cuda:0, which NCCL refuses: name each GPU once");
}

TEST_CASE("the GPU places and adds numbers of ranks as plain loops do", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  auto& device = dynamic_cast<cuda::cuda_device&>(**gpu);
  randoms random(2);
  for (const std::vector<std::int64_t>& columns :
       {std::vector<std::int64_t>{4}, {300, 300}, {16, 0, 1000}, {7, 1, 2, 5, 3}}) {
    const auto R = static_cast<int>(columns.size());
    const std::int64_t T = 5;
    const auto width = std::accumulate(columns.begin(), columns.end(), std::int64_t{0});
    const auto moves = cuda::moves_on(device, std::size_t{1} << 20);
    REQUIRE(moves != nullptr);
    const auto numbers = random.values(T * width * R, 1e3F);
    (*gpu)->write(std::as_bytes(std::span(numbers)),
                  reinterpret_cast<std::byte*>(moves->room().data()));
    floats want(static_cast<std::size_t>(T * width));
    const float* from = numbers.data();
    std::int64_t first = 0;
    for (const auto each : columns) {
      for (std::int64_t t = 0; t < T; ++t, from += each)
        std::copy_n(from, each, want.begin() + t * width + first);
      first += each;
    }
    const auto whole = gpu->room_for(T, width);
    moves->place(columns, whole);
    CAPTURE(R, width);
    CHECK(gpu->get(whole) == want);
    for (std::size_t i = 0; i < want.size(); ++i)
      want[i] = rank_sum(numbers.data() + i, R, T * width);
    moves->add(R, whole);
    CHECK(gpu->get(whole) == want);
  }
}
