#include "kernels/cuda/nccl_collective.hpp"

#include "kernels/ensure.hpp"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

namespace tandem::kernels::cuda {
namespace {

template <class T>
basic_rows<T> portion(const basic_rows<T>& whole, std::int64_t first_row, std::int64_t rows,
                      std::int64_t first_column, std::int64_t columns) {
  return {whole.row(first_row) + first_column, rows, columns, whole.stride};
}

}  // namespace

nccl_collective::nccl_collective(backend& device, std::unique_ptr<rank_moves> moves,
                                 std::unique_ptr<nccl_communicator> group, cudaStream_t stream)
    : device_(device), moves_(std::move(moves)), group_(std::move(group)), stream_(stream) {}

nccl_collective::~nccl_collective() {
  // NCCL waits for programs that hold its operations.
  device_.forget_programs();
  group_.reset();
}

void nccl_collective::gather_columns(rows_in part_TXr, std::span<const std::int64_t> columns_R,
                                     rows_out whole_TX) {
  ensure(std::ssize(columns_R) == size() &&
             columns_R[static_cast<std::size_t>(rank())] == part_TXr.columns,
         "the columns of each rank");
  ensure(part_TXr.rows == whole_TX.rows, "rows in as rows out");
  ensure(std::accumulate(columns_R.begin(), columns_R.end(), std::int64_t{0}) == whole_TX.columns,
         "the columns of the whole");
  if (whole_TX.rows == 0 || whole_TX.columns == 0 || moves_->remembered()) return;
  const std::int64_t numbers = std::ssize(moves_->room());
  ensure(numbers > 0, "room for a number");
  const std::int64_t columns_each = std::min(whole_TX.columns, numbers);
  const std::int64_t rows_each = numbers / columns_each;
  std::vector<std::int64_t> within(columns_R.size());
  for (std::int64_t column = 0; column < whole_TX.columns; column += columns_each) {
    const std::int64_t columns = std::min(columns_each, whole_TX.columns - column);
    std::int64_t start = 0;
    std::int64_t own_first = 0;
    for (std::size_t r = 0; r < within.size(); ++r) {
      const auto begin = std::clamp(column, start, start + columns_R[r]);
      const auto end = std::clamp(column + columns, start, start + columns_R[r]);
      within[r] = end - begin;
      if (std::cmp_equal(r, rank())) own_first = begin - start;
      start += columns_R[r];
    }
    for (std::int64_t first = 0; first < whole_TX.rows; first += rows_each) {
      const std::int64_t rows = std::min(rows_each, whole_TX.rows - first);
      gather_part(
          portion(part_TXr, first, rows, own_first, within[static_cast<std::size_t>(rank())]),
          within, portion(whole_TX, first, rows, column, columns));
    }
  }
}

void nccl_collective::gather_part(rows_in part_TXr, std::span<const std::int64_t> columns_R,
                                  rows_out whole_TX) {
  const auto& call = group_->call();
  float* const room = moves_->room().data();
  const auto place_of = [&](int rank) {
    return room + whole_TX.rows *
                      std::accumulate(columns_R.begin(), columns_R.begin() + rank, std::int64_t{0});
  };
  const auto count_of = [&](int rank) {
    return static_cast<std::size_t>(whole_TX.rows * columns_R[static_cast<std::size_t>(rank)]);
  };
  float* const mine = place_of(rank());
  if (part_TXr.columns > 0) device_.copy_rows(part_TXr, {mine, part_TXr.rows, part_TXr.columns});
  const bool even = std::adjacent_find(columns_R.begin(), columns_R.end(), std::not_equal_to<>()) ==
                    columns_R.end();
  group_->run("gather_columns", whole_TX.rows, whole_TX.columns, [&](ncclComm_t comm) {
    if (even) return call.all_gather(mine, room, count_of(0), ncclFloat, comm, stream_);
    if (const auto begun = call.group_start(); begun != ncclSuccess) return begun;
    auto worst = ncclSuccess;
    for (int r = 0; r < size(); ++r) {
      if (count_of(r) == 0) continue;
      float* const place = place_of(r);
      const auto asked = call.broadcast(place, place, count_of(r), ncclFloat, r, comm, stream_);
      if (asked != ncclSuccess && asked != ncclInProgress) worst = asked;
    }
    const auto ended = call.group_end();
    return worst == ncclSuccess ? ended : worst;
  });
  moves_->place(columns_R, whole_TX);
}

void nccl_collective::sum(rows_out x_TX) {
  if (x_TX.rows == 0 || x_TX.columns == 0 || moves_->remembered()) return;
  float* const room = moves_->room().data();
  const std::int64_t numbers = std::ssize(moves_->room()) / size();
  ensure(numbers > 0, "room for a number of each rank");
  const std::int64_t columns_each = std::min(x_TX.columns, numbers);
  const std::int64_t rows_each = numbers / columns_each;
  for (std::int64_t row = 0; row < x_TX.rows; row += rows_each) {
    for (std::int64_t column = 0; column < x_TX.columns; column += columns_each) {
      const std::int64_t rows = std::min(rows_each, x_TX.rows - row);
      const std::int64_t columns = std::min(columns_each, x_TX.columns - column);
      const auto some = portion(x_TX, row, rows, column, columns);
      float* const mine = room + rank() * rows * columns;
      device_.copy_rows(some, {mine, rows, columns});
      group_->run("sum", rows, columns, [&](ncclComm_t comm) {
        return group_->call().all_gather(mine, room, static_cast<std::size_t>(rows * columns),
                                         ncclFloat, comm, stream_);
      });
      moves_->add(size(), some);
    }
  }
}

void nccl_collective::meet() {
  // Numbers in the room's end, which the operations on one row do not reach.
  const std::int64_t wide = size() + 1;
  const auto room = moves_->room();
  float* const end = room.data() + std::ssize(room) - 2 * wide;
  device_.fill_zero(std::as_writable_bytes(room.last(static_cast<std::size_t>(2 * wide))));
  sum({end, 1, 1});
  std::vector<std::int64_t> columns(static_cast<std::size_t>(size()), 1);
  gather_columns({end, 1, 1}, columns, {end + wide, 1, size()});
  columns[0] = 2;
  gather_columns({end, 1, rank() == 0 ? 2 : 1}, columns, {end + wide, 1, wide});
  device_.finish();
}

}  // namespace tandem::kernels::cuda
