// Tokens drawn from rows of logits [B, V] by the arithmetic of kernels/draw_math.hpp. To be
// matched: runtime/serve/sampler.cpp, to the bit.
//
// A row is cut into pieces of 2,048 ids, and a block takes one or more. All sums are of whole
// numbers, so that no split and no order changes them. Each step is a kernel over all rows: the
// largest; the weights' units by piece, and with top_p their masses by distance from the top; three
// times the masses inside the bin where the cut falls, until it is one logit; the units above it by
// piece; the piece, then the id that u falls on. Traffic: 4 BV bytes for greedy rows, 8 BV for
// others, 24 BV for those with top_p; after the first time most of it from the L2 cache.
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/draw_room.hpp"
#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/row_loads.cuh"
#include "kernels/ensure.hpp"
#include "kernels/op_checks.hpp"

#include <algorithm>
#include <cstring>

namespace tandem::kernels::cuda {
namespace {

constexpr int threads = 256;
constexpr int warps = threads / 32;
constexpr int most_pieces_of_block = 64;
using count_64 = unsigned long long;  // what atomicAdd takes for 64 bits

struct row_rule {
  float inverse_temperature;  // 0: greedy
  float least;                // weight that counts
  std::uint64_t u;            // a share of one
  std::uint64_t top_p;        // likewise; 0: all
  std::uint64_t floor;        // units that a weight has which may be the cut's
};

struct draw_task {
  rows_in logits;
  const row_rule* rules;
  draw_room* rooms;
  std::int32_t* ids;
  int pieces;           // of a row
  int pieces_of_block;  // but for a row's last block
};

// Over the block; every thread gets it. `room` is free again on return.
template <class T>
__device__ T block_total(T x, T (&room)[warps]) {
  const unsigned lane = threadIdx.x % 32;
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(whole_warp, x, step);
  if (lane == 0) room[threadIdx.x / 32] = x;
  __syncthreads();
  T total = 0;
  for (int w = 0; w < warps; ++w) total += room[w];
  __syncthreads();
  return total;
}
__device__ count_64 block_largest(count_64 x, count_64 (&room)[warps]) {
  for (int step = 16; step > 0; step /= 2) {
    const count_64 other = __shfl_xor_sync(whole_warp, x, step);
    x = other > x ? other : x;
  }
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
  __syncthreads();
  count_64 largest = 0;
  for (int w = 0; w < warps; ++w) largest = room[w] > largest ? room[w] : largest;
  __syncthreads();
  return largest;
}
// What the threads before this one have together.
template <class T>
__device__ T sum_before(T x, T (&room)[warps]) {
  const unsigned lane = threadIdx.x % 32;
  T sum = x;
  for (unsigned step = 1; step < 32; step *= 2) {
    const T other = __shfl_up_sync(whole_warp, sum, step);
    if (lane >= step) sum += other;
  }
  if (lane == 31) room[threadIdx.x / 32] = sum;
  __syncthreads();
  for (unsigned w = 0; w < threadIdx.x / 32; ++w) sum += room[w];
  __syncthreads();
  return sum - x;
}

// f(x, id) for this thread's logits of a piece, ids ascending.
template <class F>
__device__ void for_piece(const rows_in& logits, std::int64_t row, int piece, const F& f) {
  const float* const from = logits.row(row);
  const bool wide = quads(from, 0);
  const auto end = static_cast<int>(logits.columns);
#pragma unroll
  for (int part = 0; part < draw_piece / (4 * threads); ++part) {
    const int id = piece * draw_piece + 4 * (part * threads + static_cast<int>(threadIdx.x));
    if (id >= end) return;
    const float4 x = load4(from, id, end, wide);
    f(x.x, id);
    if (id + 1 < end) f(x.y, id + 1);
    if (id + 2 < end) f(x.z, id + 2);
    if (id + 3 < end) f(x.w, id + 3);
  }
}

struct piece_range {
  int begin;
  int end;
};
__device__ piece_range pieces_of(const draw_task& task) {
  const int begin = static_cast<int>(blockIdx.x) * task.pieces_of_block;
  return {begin, min(begin + task.pieces_of_block, task.pieces)};
}

// The largest logit of a row as a number that orders by logit, then by smaller id.
__device__ count_64 peak_of(float x, int id) {
  return (count_64{drawing::key_of(x)} << 32) | (0xffffffffU - static_cast<std::uint32_t>(id));
}
struct row_top {
  float value;
  std::int32_t id;
  __device__ bool drawable() const { return value > -INFINITY && value < INFINITY; }
};
__device__ row_top top_of(const draw_room& room, int blocks, count_64 (&shared)[warps]) {
  const auto t = static_cast<int>(threadIdx.x);
  const count_64 best = block_largest(t < blocks ? room.peaks[t] : 0, shared);
  return {drawing::value_of(static_cast<std::uint32_t>(best >> 32)),
          static_cast<std::int32_t>(0xffffffffU - static_cast<std::uint32_t>(best))};
}

__device__ std::uint64_t units_of(float x, float top, const row_rule& rule) {
  return drawing::units(drawing::weight(x, top, rule.inverse_temperature, rule.least));
}

// A block's masses by bin, in two halves: shared memory adds 32 bits at once, not 64.
struct bins {
  std::uint32_t low[draw_bins];
  std::uint32_t high[draw_bins];

  __device__ void clear() {
    for (int b = threadIdx.x; b < draw_bins; b += threads) low[b] = high[b] = 0;
    __syncthreads();
  }
  __device__ void add(int bin, std::uint64_t units) {
    const auto part = static_cast<std::uint32_t>(units);
    const std::uint32_t before = atomicAdd(&low[bin], part);
    const auto rest = static_cast<std::uint32_t>(units >> 32) + (before + part < before ? 1U : 0U);
    if (rest != 0) atomicAdd(&high[bin], rest);
  }
  __device__ void flush(std::uint64_t* to) {
    __syncthreads();
    for (int b = threadIdx.x; b < draw_bins; b += threads) {
      const count_64 mass = (count_64{high[b]} << 32) | low[b];
      if (mass != 0) atomicAdd(reinterpret_cast<count_64*>(to + b), mass);
    }
  }
};

// The first bin with which the masses reach `wanted` (at least 1), and what is wanted of it.
struct cut_bin {
  int bin;
  std::uint64_t wanted;
};
__device__ cut_bin bin_of_cut(const std::uint64_t* masses, std::uint64_t wanted,
                              count_64 (&shared)[warps], cut_bin& found) {
  constexpr int each = draw_bins / threads;
  const int first = static_cast<int>(threadIdx.x) * each;
  count_64 mine[each];
  count_64 sum = 0;
  for (int i = 0; i < each; ++i) sum += mine[i] = masses[first + i];
  if (threadIdx.x == 0) found = {draw_bins - 1, 1};
  count_64 before = sum_before(sum, shared);
  if (before < wanted && before + sum >= wanted) {
    int i = 0;
    while (i + 1 < each && before + mine[i] < wanted) before += mine[i++];
    found = {first + i, wanted - before};
  }
  __syncthreads();
  return found;
}

// A range of keys in bins of 2^shift, the largest first.
__device__ int shift_of(const draw_cut& cut) {
  const int bits = 32 - __clz(static_cast<int>(cut.last - cut.first));
  return max(bits - 11, 0);
}

struct select_room {
  count_64 sums[warps];
  cut_bin bin;
  std::uint32_t keys[2];
};

// The cut as the masses of rounds before `round` say.
__device__ draw_cut cut_before(const draw_task& task, const draw_room& room, int round,
                               const row_top& top, const row_rule& rule, select_room& shared) {
  const auto t = static_cast<int>(threadIdx.x);
  if (round == 1) {
    const count_64 total = block_total(t < task.pieces ? count_64{room.units[t]} : 0, shared.sums);
    const auto [bucket, wanted] = bin_of_cut(
        room.masses[0], drawing::nucleus_wanted(total, rule.top_p), shared.sums, shared.bin);
    const std::uint32_t last = drawing::key_of(top.value);
    if (t % 32 == 0 && t < 64)
      shared.keys[t / 32] = t == 32 && bucket == 0
                                ? last + 1
                                : drawing::first_key_within(bucket - t / 32, top.value,
                                                            rule.inverse_temperature, last);
    __syncthreads();
    return {shared.keys[0], shared.keys[1] - 1, wanted};
  }
  draw_cut cut = room.cuts[round - 2];
  if (cut.first == cut.last) return cut;
  const int shift = shift_of(cut);
  const auto [bin, wanted] =
      bin_of_cut(room.masses[round - 1], cut.wanted, shared.sums, shared.bin);
  cut.last -= static_cast<std::uint32_t>(bin) << shift;
  cut.first = max(cut.first, cut.last - ((1U << shift) - 1));
  cut.wanted = wanted;
  return cut;
}

__global__ void __launch_bounds__(threads) find_largest(draw_task task) {
  __shared__ count_64 shared[warps];
  wait_for_previous();
  const std::int64_t row = blockIdx.y;
  draw_room& room = task.rooms[row];
  float best = -INFINITY;
  int best_id = 0;
  const auto [begin, end] = pieces_of(task);
  for (int piece = begin; piece < end; ++piece)
    for_piece(task.logits, row, piece, [&](float x, int id) {
      if (!(x > best)) return;
      best = x;
      best_id = id;
    });
  const count_64 peak = block_largest(peak_of(best, best_id), shared);
  if (threadIdx.x == 0) room.peaks[blockIdx.x] = peak;
  if (task.rules[row].top_p == 0) return;
  for (int i = blockIdx.x * threads + threadIdx.x; i < draw_rounds * draw_bins;
       i += gridDim.x * threads)
    room.masses[0][i] = 0;
}

__global__ void __launch_bounds__(threads) weigh(draw_task task) {
  __shared__ count_64 shared[warps];
  __shared__ count_64 sums[most_pieces_of_block][warps];
  __shared__ bins masses;
  wait_for_previous();
  const std::int64_t row = blockIdx.y;
  draw_room& room = task.rooms[row];
  const row_rule rule = task.rules[row];
  if (rule.inverse_temperature == 0.0F) return;
  const row_top top = top_of(room, static_cast<int>(gridDim.x), shared);
  if (!top.drawable()) return;
  const bool cuts = rule.top_p != 0;
  if (cuts) masses.clear();
  const auto [begin, end] = pieces_of(task);
  for (int piece = begin; piece < end; ++piece) {
    count_64 sum = 0;
    for_piece(task.logits, row, piece, [&](float x, int) {
      const std::uint64_t units = units_of(x, top.value, rule);
      sum += units;
      if (cuts && units >= rule.floor)
        masses.add(drawing::bucket_of(x, top.value, rule.inverse_temperature), units);
    });
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(whole_warp, sum, step);
    if (threadIdx.x % 32 == 0) sums[piece - begin][threadIdx.x / 32] = sum;
  }
  __syncthreads();
  if (const int piece = begin + static_cast<int>(threadIdx.x); piece < end) {
    count_64 sum = 0;
    for (const count_64 of_warp : sums[threadIdx.x]) sum += of_warp;
    room.units[piece] = sum;
  }
  if (cuts) masses.flush(room.masses[0]);
}

// One round: which of the bins of the last one has the cut, and the masses inside it.
__global__ void __launch_bounds__(threads) narrow(draw_task task, int round) {
  __shared__ select_room shared;
  __shared__ bins masses;
  wait_for_previous();
  const std::int64_t row = blockIdx.y;
  draw_room& room = task.rooms[row];
  const row_rule rule = task.rules[row];
  if (rule.top_p == 0) return;
  const row_top top = top_of(room, static_cast<int>(gridDim.x), shared.sums);
  if (!top.drawable()) return;
  const draw_cut cut = cut_before(task, room, round, top, rule, shared);
  if (blockIdx.x == 0 && threadIdx.x == 0) room.cuts[round - 1] = cut;
  if (cut.first == cut.last) return;
  masses.clear();
  const int shift = shift_of(cut);
  const auto [begin, end] = pieces_of(task);
  for (int piece = begin; piece < end; ++piece)
    for_piece(task.logits, row, piece, [&](float x, int) {
      const std::uint32_t key = drawing::key_of(x);
      if (key < cut.first || key > cut.last) return;
      const std::uint64_t units = units_of(x, top.value, rule);
      if (units >= rule.floor) masses.add(static_cast<int>((cut.last - key) >> shift), units);
    });
  masses.flush(room.masses[round]);
}

// The units of what the nucleus keeps, by piece: of all above the cut's logit, and how many are
// equal to it.
__global__ void __launch_bounds__(threads) keep(draw_task task) {
  __shared__ select_room shared;
  __shared__ count_64 sums[most_pieces_of_block][warps];
  __shared__ std::uint32_t ties[most_pieces_of_block][warps];
  wait_for_previous();
  const std::int64_t row = blockIdx.y;
  draw_room& room = task.rooms[row];
  const row_rule rule = task.rules[row];
  if (rule.top_p == 0) return;
  const row_top top = top_of(room, static_cast<int>(gridDim.x), shared.sums);
  if (!top.drawable()) return;
  const draw_cut cut = cut_before(task, room, draw_rounds, top, rule, shared);
  if (blockIdx.x == 0 && threadIdx.x == 0) room.cuts[draw_rounds - 1] = cut;
  const auto [begin, end] = pieces_of(task);
  for (int piece = begin; piece < end; ++piece) {
    count_64 sum = 0;
    std::uint32_t equal = 0;
    for_piece(task.logits, row, piece, [&](float x, int) {
      const std::uint32_t key = drawing::key_of(x);
      if (key > cut.last) sum += units_of(x, top.value, rule);
      if (key == cut.last) ++equal;
    });
    for (int step = 16; step > 0; step /= 2) {
      sum += __shfl_xor_sync(whole_warp, sum, step);
      equal += __shfl_xor_sync(whole_warp, equal, step);
    }
    if (threadIdx.x % 32 == 0) {
      sums[piece - begin][threadIdx.x / 32] = sum;
      ties[piece - begin][threadIdx.x / 32] = equal;
    }
  }
  __syncthreads();
  if (const int piece = begin + static_cast<int>(threadIdx.x); piece < end) {
    count_64 sum = 0;
    std::uint32_t equal = 0;
    for (int w = 0; w < warps; ++w) {
      sum += sums[threadIdx.x][w];
      equal += ties[threadIdx.x][w];
    }
    room.units[piece] = sum;
    room.ties[piece] = equal;
  }
}

// One block a row: the piece, then the id, where the running sum exceeds u times the whole.
__global__ void __launch_bounds__(threads) choose(draw_task task, int blocks) {
  struct place {
    int piece;
    std::uint32_t ties;  // of the cut's logit that may still be taken
    std::uint64_t left;  // of the target
  };
  __shared__ count_64 shared[warps];
  __shared__ std::uint32_t shared_ties[warps];
  __shared__ place at;
  wait_for_previous();
  const std::int64_t row = blockIdx.x;
  const auto t = static_cast<int>(threadIdx.x);
  const draw_room& room = task.rooms[row];
  const row_rule rule = task.rules[row];
  const row_top top = top_of(room, blocks, shared);
  if (t == 0) task.ids[row] = top.drawable() ? top.id : -1;
  if (!top.drawable() || rule.inverse_temperature == 0.0F) return;
  const bool cuts = rule.top_p != 0;
  // Without a cut there is nothing above which logits count, nor equal ones.
  std::uint32_t above = 0;
  count_64 tie_units = 0;
  std::uint32_t kept_ties = 0;
  if (cuts) {
    const draw_cut cut = room.cuts[draw_rounds - 1];
    above = cut.last;
    tie_units = units_of(drawing::value_of(cut.last), top.value, rule);
    kept_ties = static_cast<std::uint32_t>((cut.wanted + tie_units - 1) / tie_units);
  }
  const auto kept = [&](std::uint32_t ties, std::uint32_t before) {
    return before < kept_ties ? min(ties, kept_ties - before) : 0U;
  };

  const std::uint32_t ties = cuts && t < task.pieces ? room.ties[t] : 0;
  const std::uint32_t ties_before = sum_before(ties, shared_ties);
  const count_64 mass =
      (t < task.pieces ? count_64{room.units[t]} : 0) + kept(ties, ties_before) * tie_units;
  const count_64 before = sum_before(mass, shared);
  const count_64 target = drawing::part_of(block_total(mass, shared), rule.u);
  if (before <= target && target < before + mass)
    at = {t, kept_ties - min(kept_ties, ties_before), target - before};
  __syncthreads();

  constexpr int each = draw_piece / threads;
  const int first = at.piece * draw_piece + t * each;
  const float* const from = task.logits.row(row);
  kept_ties = at.ties;
  std::uint32_t equal = 0;
  for (int i = 0; cuts && i < each && first + i < task.logits.columns; ++i)
    equal += drawing::key_of(from[first + i]) == above ? 1 : 0;
  std::uint32_t equal_before = sum_before(equal, shared_ties);
  count_64 units[each];
  count_64 sum = 0;
#pragma unroll
  for (int i = 0; i < each; ++i) {
    units[i] = 0;
    if (first + i >= task.logits.columns) continue;
    const float x = from[first + i];
    const std::uint32_t key = drawing::key_of(x);
    if (cuts && key == above)
      units[i] = kept(1, equal_before++) * tie_units;
    else if (key > above)
      units[i] = units_of(x, top.value, rule);
    sum += units[i];
  }
  count_64 reached = sum_before(sum, shared);
  if (reached > at.left || reached + sum <= at.left) return;
#pragma unroll
  for (int i = 0; i < each; ++i) {
    if (reached <= at.left && reached + units[i] > at.left) task.ids[row] = first + i;
    reached += units[i];
  }
}

row_rule rule_for(const draw_rule& how, std::int64_t vocabulary) {
  row_rule rule{};
  if (how.temperature == 0.0F) return rule;
  rule.inverse_temperature = 1.0F / how.temperature;
  rule.least = std::max(how.min_p, drawing::vanishing);
  rule.u = drawing::share_of_one(how.u);
  if (how.top_p >= 1.0F) return rule;
  rule.top_p = std::max<std::uint64_t>(drawing::share_of_one(double{how.top_p}), 1);
  rule.floor =
      std::max<std::uint64_t>(drawing::nucleus_floor(drawing::one, rule.top_p, vocabulary), 1);
  return rule;
}

}  // namespace

bool cuda_device::draw(rows_in logits_BV, std::span<const draw_rule> how_B,
                       std::span<std::int32_t> ids_B) {
  require(checks::draw(logits_BV, how_B, ids_B));
  ensure(program_ == nullptr, "draws between programs");
  if (logits_BV.rows == 0 || logits_BV.columns == 0 ||
      logits_BV.columns > std::int64_t{draw_pieces} * draw_piece)
    return false;
  std::vector<row_rule> rules(how_B.size());
  for (std::size_t b = 0; b < rules.size(); ++b) rules[b] = rule_for(how_B[b], logits_BV.columns);
  const auto pieces = static_cast<int>((logits_BV.columns + draw_piece - 1) / draw_piece);
  auto* const rooms = scratch<draw_room>(draw_rows);
  auto* const ids = scratch<std::int32_t>(draw_rows);
  for (std::int64_t first = 0; first < logits_BV.rows; first += draw_rows) {
    const std::int64_t rows = std::min<std::int64_t>(draw_rows, logits_BV.rows - first);
    const auto some = std::span<const row_rule>(rules).subspan(static_cast<std::size_t>(first),
                                                               static_cast<std::size_t>(rows));
    // Some blocks for each multiprocessor.
    const auto each = static_cast<int>((rows * pieces - 1) / (4 * multiprocessors_) + 1);
    const draw_task task{{logits_BV.row(first), rows, logits_BV.columns, logits_BV.stride},
                         upload(some),
                         rooms,
                         ids,
                         pieces,
                         std::min(each, most_pieces_of_block)};
    const int blocks = (pieces - 1) / task.pieces_of_block + 1;
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(rows));
    const auto is_greedy = [](const row_rule& r) { return r.inverse_temperature == 0.0F; };
    const auto has_top_p = [](const row_rule& r) { return r.top_p != 0; };
    launch_early(find_largest, grid, threads, 0, stream_, task);
    if (!std::all_of(some.begin(), some.end(), is_greedy))
      launch_early(weigh, grid, threads, 0, stream_, task);
    if (std::any_of(some.begin(), some.end(), has_top_p)) {
      for (int round = 1; round < draw_rounds; ++round)
        launch_early(narrow, grid, threads, 0, stream_, task, round);
      launch_early(keep, grid, threads, 0, stream_, task);
    }
    launch_early(choose, dim3(static_cast<unsigned>(rows)), threads, 0, stream_, task, blocks);
    launched("draw", rows, logits_BV.columns);
    // Through pinned memory, as rows of numbers go.
    const rows_out drawn = to_host({reinterpret_cast<float*>(ids), 1, rows});
    std::memcpy(ids_B.data() + first, drawn.data, static_cast<std::size_t>(rows) * sizeof(*ids));
  }
  end_scratch();
  return true;
}

}  // namespace tandem::kernels::cuda
