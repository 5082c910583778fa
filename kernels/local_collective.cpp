#include "kernels/local_collective.hpp"

#include "kernels/ensure.hpp"
#include "kernels/spin_wait.hpp"

#include <utility>

namespace tandem::kernels {
namespace {

rows_out rows_within(rows_out whole, std::int64_t first, std::int64_t count) {
  return {whole.row(first), count, whole.columns, whole.stride};
}

}  // namespace

class local_group::member final : public collective {
 public:
  member(local_group& group, int rank) : group_(group), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(group_.devices_.size()); }

  void gather_columns(rows_in part_TXr, std::span<const std::int64_t> columns_R,
                      rows_out whole_TX) override {
    ensure(std::ssize(columns_R) == size() && columns_R[index(rank_)] == part_TXr.columns,
           "the columns of each rank");
    ensure(part_TXr.rows == whole_TX.rows, "rows in as rows out");
    auto& device = *group_.devices_[index(rank_)];
    // Never written through: others read it.
    offer({const_cast<float*>(part_TXr.data), part_TXr.rows, part_TXr.columns, part_TXr.stride});
    std::int64_t first = 0;
    for (int rank = 0; rank < size(); ++rank) {
      const auto columns = columns_R[index(rank)];
      const auto& from = group_.offered_[index(rank)];
      const rows_out to{whole_TX.data + first, whole_TX.rows, columns, whole_TX.stride};
      first += columns;
      ensure(from.rows == to.rows && from.columns == columns, "ranks that do the same");
      if (columns > 0 && from.data != to.data) device.copy_rows(from, to);
    }
    ensure(first == whole_TX.columns, "the columns of the whole");
    end();
  }

  // Each rank adds its share of rows, in rank 0's memory; all then read it there.
  void sum(rows_out x_TX) override {
    auto& device = *group_.devices_[index(rank_)];
    ensure(device.host_memory(), "sums of ranks that can write each other's memory");
    offer(x_TX);
    const auto start = [&](int rank) { return x_TX.rows * rank / size(); };
    add(0, size(), start(rank_), start(rank_ + 1) - start(rank_));
    group_.meet();
    if (rank_ > 0) device.copy_rows(group_.offered_[0], x_TX);
    end();
  }

 private:
  static std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

  // From here to end() every rank's rows are done, and stay as they are.
  void offer(rows_out rows) {
    group_.offered_[index(rank_)] = rows;
    group_.devices_[index(rank_)]->finish();
    group_.meet();
  }
  void end() {
    group_.devices_[index(rank_)]->finish();
    group_.meet();
  }

  // The tree's sum over ranks [begin, end) of these rows comes to lie in rank `begin`'s.
  void add(int begin, int end, std::int64_t first_row, std::int64_t rows) {
    if (end - begin < 2 || rows == 0) return;
    const int middle = (begin + end) / 2;
    add(begin, middle, first_row, rows);
    add(middle, end, first_row, rows);
    group_.devices_[index(rank_)]->add_rows(
        rows_within(group_.offered_[index(middle)], first_row, rows),
        rows_within(group_.offered_[index(begin)], first_row, rows));
  }

  local_group& group_;
  int rank_;
};

local_group::local_group(std::vector<backend*> devices)
    : devices_(std::move(devices)), offered_(devices_.size()) {
  ensure(!devices_.empty(), "a group of no ranks");
  for (std::size_t rank = 0; rank < devices_.size(); ++rank)
    members_.push_back(std::make_unique<member>(*this, static_cast<int>(rank)));
}

local_group::~local_group() = default;

collective& local_group::of(int rank) { return *members_[static_cast<std::size_t>(rank)]; }

void local_group::give_up() {
  lost_ = true;
  phase_.fetch_add(1, std::memory_order_release);
  phase_.notify_all();
}

void local_group::meet() {
  const auto phase = phase_.load(std::memory_order_acquire);
  if (lost_) throw rank_lost();
  const auto last = static_cast<std::uint32_t>(devices_.size() - 1);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == last) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.fetch_add(1, std::memory_order_release);
    phase_.notify_all();
  } else {
    wait_while(phase_, phase);
  }
  if (lost_) throw rank_lost();
}

}  // namespace tandem::kernels
