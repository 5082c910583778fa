// Products with sixteen-bit weights on Hopper, where cuda_device::on_hopper says so: weights are
// wgmma's first operand, out of registers, as they lie in their tiles; rows are its second. A step
// is a group of 32 columns, two wgmma of sixteen in the order that mma.sync has them elsewhere
// (products_mma.cuh), so that bits are the same. One thread brings a stage of two groups as two
// boxes, one of weights and one of rows (a copy for each tile left the tensor cores waiting).
//
// Few rows: a block has 64 outputs and up to 64 rows; its two warpgroups, and those of the blocks
// beside it in a cluster where tiles are few, take chunks in turns, whose sums meet in the first
// block's shared memory. Traffic: the weights once for 64 rows. Many rows: a block goes
// through tiles of 128 outputs by 128 rows, 64 outputs a warpgroup. Traffic: weights once for each
// 128 rows, rows once for each 128 outputs, mostly from the second cache.
#include "kernels/cuda/hopper_rows.cuh"

#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/hopper_layout.cuh"
#include "kernels/cuda/hopper_mma.cuh"
#include "kernels/cuda/products_mma.cuh"
#include "kernels/cuda/tensor_map.hpp"
#include "kernels/ensure.hpp"

#include <algorithm>

namespace tandem::kernels::cuda {
namespace {

constexpr int group_threads = 128;
constexpr int stage_groups = 2;
constexpr int row_bytes = 64;     // of a group
constexpr int tile_group = 1024;  // bytes of a tile's group
constexpr int most_shared = 227 * 1024;
constexpr int most_chunks = 8;

struct task {
  product p;
  // Words of four bytes: 256 of a tile's group, groups, tiles; 256 of sixteen rows, sixteens,
  // groups.
  CUtensorMap weights;
  CUtensorMap rows;    // laid out
  std::int32_t tiles;  // of weights
};

// Shared memory of both kernels begins with whole kilobytes.
constexpr int line_up = 1024;

template <int Rows>
struct few_room {
  static constexpr int tiles = 4;
  static constexpr int stage_bytes = stage_groups * (tiles * tile_group + Rows * row_bytes);
  static constexpr int sum_floats = 64 * Rows;  // of a chunk
  static constexpr int sum_bytes = most_chunks * sum_floats * 4;
  static constexpr int stages =
      std::min((most_shared - line_up - 256 - sum_bytes) / 2 / stage_bytes, 6);
  static constexpr int shared_bytes = line_up + 2 * stages * stage_bytes + sum_bytes + 256;
};

constexpr int many_outputs = 128;
constexpr int many_rows = 128;
struct many_room {
  static constexpr int tiles = many_outputs / tile_outputs;
  static constexpr int stage_bytes = stage_groups * (tiles * tile_group + many_rows * row_bytes);
  static constexpr int gate_bytes = many_outputs / 2 * many_rows * 4;
  static constexpr int stages = (most_shared - line_up - 128 - gate_bytes) / stage_bytes;
  static constexpr int shared_bytes = line_up + stages * stage_bytes + gate_bytes + 128;
};

#ifdef TANDEM_HOPPER

// A stage's groups of weights and of rows; what a chunk has no more is brought, too, and not used.
__device__ inline void bring_weights(const task& t, unsigned stage, std::int32_t group, int tile,
                                     unsigned barrier) {
  bring_box(stage, t.weights, 0, group, tile, barrier);
}
__device__ inline void bring_rows(const task& t, unsigned to, std::int32_t group, int row,
                                  unsigned barrier) {
  bring_box(to, t.rows, 0, row / 16, group, barrier);
}

__device__ inline void meet_cluster() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}
// Where an address of shared memory lies in the cluster's first block.
__device__ inline unsigned of_first_block(unsigned address) {
  unsigned there = 0;
  asm volatile("mapa.shared::cluster.u32 %0, %1, 0;" : "=r"(there) : "r"(address));
  return there;
}
__device__ inline void put_there(unsigned address, float value) {
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(address), "f"(value) : "memory");
}

// Rows lie in lines of 64 swizzled bytes, eights of them 512 bytes apart.
__device__ inline std::uint64_t rows_at(unsigned address) {
  constexpr std::uint64_t eight_lines = std::uint64_t{512 >> 4} << 32U;
  constexpr std::uint64_t swizzled_64 = std::uint64_t{2} << 62U;
  return (address & 0x3FFFFU) >> 4U | std::uint64_t{1} << 16U | eight_lines | swizzled_64;
}

// A warp's tile of one group: two steps' operands.
struct group_part {
  uint4 low;
  uint4 high;
};
__device__ inline group_part load_part(unsigned tile, int lane) {
  group_part part;
  const auto load = [](unsigned at) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(at)
                 : "memory");
    return v;
  };
  part.low = load(tile + lane * 16);
  part.high = load(tile + 512 + lane * 16);
  return part;
}

template <bool Half, int N>
__device__ inline void multiply_part(float (&sums)[N], const group_part& w, unsigned rows,
                                     int onto) {
  multiply_64<Half>(sums, w.low.x, w.high.x, w.low.y, w.high.y, rows_at(rows), onto);
  multiply_64<Half>(sums, w.low.z, w.high.z, w.low.w, w.high.w, rows_at(rows + 32), 1);
}

// Groups [begin, end) of a row of weight tiles by the rows in lines there, added to or put in
// `sums`; `done` hears of each stage. While one warpgroup waits the other multiplies.
template <bool Half, int Stages, int N, class Done>
__device__ inline void multiply_groups(float (&sums)[N], std::int32_t begin, std::int32_t end,
                                       int tile, unsigned stages, int stage_bytes, int rows_offset,
                                       int rows_group, unsigned full, ring_place<Stages>& at,
                                       const Done& done) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  settle(sums);
#pragma unroll 1
  for (std::int32_t group = begin; group < end; group += stage_groups) {
    const unsigned stage = stages + at.stage * stage_bytes;
    wait_for(full + at.stage * 8, at.parity);
    const bool both = group + 1 < end;
    const unsigned weights = stage + tile * stage_groups * tile_group;
    const group_part first = load_part(weights, lane);
    group_part second = load_part(weights + (both ? tile_group : 0), lane);
    if (!both) second = {};  // zeros times rows that are there: nothing is added
    const unsigned rows = stage + rows_offset;
    begin_multiplying();
    multiply_part<Half>(sums, first, rows, group > begin ? 1 : 0);
    multiply_part<Half>(sums, second, rows + (both ? rows_group : 0), 1);
    close_multiplying();
    // The registers of these operands are free when their products are done.
    wait_multiplied<0>();
    done(at.stage);
    at.next();
  }
  settle(sums);
}

#endif

// Blocks of a cluster (z) share a tile's chunks: the sums meet in the first one's shared memory.
template <bool Half, int Rows, bool Gated>
__global__ __launch_bounds__(2 * group_threads + 64,
                             1) void few_kernel(const __grid_constant__ task t) {
#ifdef TANDEM_HOPPER
  using s = few_room<Rows>;
  extern __shared__ uint4 shared_memory[];
  const product& p = t.p;
  const unsigned base = shared_address(shared_memory);
  const unsigned start = (base + line_up - 1) / line_up * line_up;
  const unsigned barriers = start + 2 * s::stages * s::stage_bytes + s::sum_bytes;
  const unsigned sums_at = start + 2 * s::stages * s::stage_bytes;
  const auto* const chunk_sums = reinterpret_cast<const float*>(
      reinterpret_cast<const std::byte*>(shared_memory) + (sums_at - base));
  const int rings = 2 * static_cast<int>(gridDim.z);  // of the cluster
  const auto full = [&](int ring) { return barriers + ring * s::stages * 16; };
  const auto empty = [&](int ring) { return full(ring) + s::stages * 8; };
  const auto first_chunk = [&](int ring) { return 2 * static_cast<int>(blockIdx.z) + ring; };
  const int thread = static_cast<int>(threadIdx.x);
  const int first_tile = static_cast<int>(blockIdx.x) * s::tiles;
  const int first_row = static_cast<int>(blockIdx.y) * Rows;
  const int chunks = (p.groups + p.chunk - 1) / p.chunk;
  if (thread == 0) {
    for (int i = 0; i < 2 * s::stages; ++i) {
      const int ring = i / s::stages;
      open_barrier(full(ring) + i % s::stages * 8, 1);
      open_barrier(empty(ring) + i % s::stages * 8, 4);
    }
    publish_barriers();
  }
  meet_cluster();  // all are there
  if (thread >= 2 * group_threads) {
    if (thread % 32 != 0) return;
    const int ring = thread / 32 - 2 * group_threads / 32;
    const auto stages = start + ring * s::stages * s::stage_bytes;
    const auto begin_stage = [&](int stage, std::int32_t group) {
      const unsigned barrier = full(ring) + stage * 8;
      expect_bytes(barrier, s::stage_bytes);
      bring_weights(t, stages + stage * s::stage_bytes, group, first_tile, barrier);
    };
    // Calls f(group) for each stage of this ring's chunks.
    const auto each_stage = [&](auto&& f) {
      for (int chunk = first_chunk(ring); chunk < chunks; chunk += rings) {
        const std::int32_t end = min((chunk + 1) * p.chunk, p.groups);
        for (std::int32_t group = chunk * p.chunk; group < end; group += stage_groups) f(group);
      }
    };
    // Weights are there already: the first stages' come while the kernel before ends.
    int ahead = 0;
    each_stage([&](std::int32_t group) {
      if (ahead < s::stages) begin_stage(ahead++, group);
    });
    wait_for_previous();
    ring_place<s::stages> at;
    int done = 0;
    each_stage([&](std::int32_t group) {
      if (done++ >= ahead) {
        wait_for(empty(ring) + at.stage * 8, at.parity ^ 1U);
        begin_stage(at.stage, group);
      }
      bring_rows(t, stages + at.stage * s::stage_bytes + stage_groups * s::tiles * tile_group,
                 group, first_row, full(ring) + at.stage * 8);
      at.next();
    });
    return;
  }
  wait_for_previous();
  const int ring = thread / group_threads;
  const int lane = thread % 32;
  const int warp = thread % group_threads / 32;
  ring_place<s::stages> at;
  const unsigned first_sums = of_first_block(sums_at);
  for (int chunk = first_chunk(ring); chunk < chunks; chunk += rings) {
    float sums[Rows / 2];
    multiply_groups<Half>(sums, chunk * p.chunk, min((chunk + 1) * p.chunk, p.groups), warp,
                          start + ring * s::stages * s::stage_bytes, s::stage_bytes,
                          stage_groups * s::tiles * tile_group, Rows * row_bytes, full(ring), at,
                          [&](int stage) {
                            if (lane == 0) arrive(empty(ring) + stage * 8);
                          });
    // [row][64 outputs]
    const unsigned to = first_sums + (chunk * s::sum_floats + warp * 16 + lane / 4) * 4;
#pragma unroll
    for (int i = 0; i < Rows / 2; ++i)
      put_there(to + ((i / 4 * 8 + lane % 4 * 2 + i % 2) * 64 + i / 2 % 2 * 8) * 4, sums[i]);
  }
  meet_cluster();
  if (blockIdx.z != 0) return;
  constexpr int outputs = Gated ? 32 : 64;
  for (int i = thread; i < Rows * outputs; i += 2 * group_threads) {
    const int row = i / outputs;
    const int output = i % outputs;
    if (first_row + row >= p.rows) break;
    const int place = row * 64 + (Gated ? output / 16 * 32 + output % 16 : output);
    float total = 0.0F;
    float other = 0.0F;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      total = __fadd_rn(total, chunk_sums[chunk * s::sum_floats + place]);
      if constexpr (Gated) other = __fadd_rn(other, chunk_sums[chunk * s::sum_floats + place + 16]);
    }
    const int to = static_cast<int>(blockIdx.x) * outputs + output;
    if constexpr (Gated)
      put_gated(p, first_row + row, to, total, other);
    else
      put_output(p, first_row + row, to, total);
  }
#else
  __trap();  // has_wgmma says no
#endif
}

template <bool Half, bool Gated>
__global__ __launch_bounds__(3 * group_threads,
                             1) void many_kernel(const __grid_constant__ task t) {
#ifdef TANDEM_HOPPER
  using s = many_room;
  extern __shared__ uint4 shared_memory[];
  const product& p = t.p;
  const unsigned base = shared_address(shared_memory);
  const unsigned stages = (base + line_up - 1) / line_up * line_up;
  const unsigned full = stages + s::stages * s::stage_bytes + s::gate_bytes;
  const unsigned empty = full + s::stages * 8;
  auto* const gates = reinterpret_cast<float*>(reinterpret_cast<std::byte*>(shared_memory) +
                                               (stages - base + s::stages * s::stage_bytes));
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int i = 0; i < s::stages; ++i) {
      open_barrier(full + i * 8, 1);
      open_barrier(empty + i * 8, 8);  // a warp one
    }
    publish_barriers();
  }
  __syncthreads();
  const int across = (p.rows + many_rows - 1) / many_rows;
  const int items = across * ((t.tiles + s::tiles - 1) / s::tiles);
  if (thread < group_threads) {
    give_registers<40>();
    if (thread != 0) return;
    ring_place<s::stages> at;
#pragma unroll 1
    for (int item = static_cast<int>(blockIdx.x); item < items;
         item += static_cast<int>(gridDim.x)) {
      const int first_row = item % across * many_rows;
      const int first_tile = item / across * s::tiles;
      for (std::int32_t begin = 0; begin < p.groups; begin += p.chunk) {
        const std::int32_t end = min(begin + p.chunk, p.groups);
#pragma unroll 1
        for (std::int32_t group = begin; group < end; group += stage_groups) {
          const unsigned stage = stages + at.stage * s::stage_bytes;
          const unsigned barrier = full + at.stage * 8;
          wait_for(empty + at.stage * 8, at.parity ^ 1U);
          expect_bytes(barrier, s::stage_bytes);
          bring_weights(t, stage, group, first_tile, barrier);
          bring_rows(t, stage + stage_groups * s::tiles * tile_group, group, first_row, barrier);
          at.next();
        }
      }
    }
  } else {
    take_registers<232>();
    const int group = thread / group_threads - 1;
    const int lane = thread % 32;
    const int warp = thread % group_threads / 32;
    ring_place<s::stages> at;
#pragma unroll 1
    for (int item = static_cast<int>(blockIdx.x); item < items;
         item += static_cast<int>(gridDim.x)) {
      const int first_row = item % across * many_rows;
      const int first_tile = item / across * s::tiles + group * 4;
      float total[64] = {};
#pragma unroll 1
      for (std::int32_t begin = 0; begin < p.groups; begin += p.chunk) {
        float sums[64];
        multiply_groups<Half>(sums, begin, min(begin + p.chunk, p.groups), group * 4 + warp, stages,
                              s::stage_bytes, stage_groups * s::tiles * tile_group,
                              many_rows * row_bytes, full, at, [&](int stage) {
                                if (lane == 0) arrive(empty + stage * 8);
                              });
#pragma unroll
        for (int i = 0; i < 64; ++i) total[i] = __fadd_rn(total[i], sums[i]);
      }
      // A thread has outputs lane / 4 and eight further of its warp's tile.
      const int tile = first_tile + warp;
      const auto row_of = [&](int i) { return first_row + i / 4 * 8 + lane % 4 * 2 + i % 2; };
      if constexpr (Gated) {
        // Gate and up are neighbouring warps' tiles.
        float* const room = gates + (group * 2 + warp / 2) * 64 * 32 + lane;
        if (warp % 2 == 1) {
#pragma unroll
          for (int i = 0; i < 64; ++i) room[i * 32] = total[i];
        }
        meet(1 + group);
        if (warp % 2 == 0) {
#pragma unroll
          for (int i = 0; i < 64; ++i) {
            const int output = tile / 2 * tile_outputs + lane / 4 + i / 2 % 2 * 8;
            if (row_of(i) < p.rows) put_gated(p, row_of(i), output, total[i], room[i * 32]);
          }
        }
        meet(1 + group);
      } else {
        constexpr int together = 16;  // loads under way
        float* const to = p.y + std::int64_t{first_row + lane % 4 * 2} * p.y_stride +
                          tile * tile_outputs + lane / 4;
        const int outputs_left = p.outputs - tile * tile_outputs - lane / 4;
        const int rows_left = p.rows - first_row - lane % 4 * 2;
        const auto there = [&](int i) {
          return i / 4 * 8 + i % 2 < rows_left && i / 2 % 2 * 8 < outputs_left;
        };
        const auto place = [&](int i) {
          return to + (i / 4 * 8 + i % 2) * p.y_stride + i / 2 % 2 * 8;
        };
        float bias[2] = {};
#pragma unroll
        for (int half = 0; half < 2; ++half)
          if (p.bias != nullptr && half * 8 < outputs_left)
            bias[half] = p.bias[tile * tile_outputs + lane / 4 + half * 8];
#pragma unroll
        for (int first = 0; first < 64; first += together) {
          float held[together] = {};
          if (p.add) {
#pragma unroll
            for (int i = 0; i < together; ++i)
              if (there(first + i)) held[i] = *place(first + i);
          }
#pragma unroll
          for (int i = 0; i < together; ++i) {
            float v = total[first + i];
            if (p.bias != nullptr) v = __fadd_rn(v, bias[(first + i) / 2 % 2]);
            if (p.add) v = __fadd_rn(held[i], v);
            if (there(first + i)) *place(first + i) = v;
          }
          asm volatile("" ::: "memory");  // the next loads not before
        }
      }
    }
  }
#else
  __trap();  // has_wgmma says no
#endif
}

// Boxes of so many tiles' and rows' stages.
void describe(task& t, const laid_out& rows, int tiles, int box_rows) {
  constexpr std::uint64_t words = tile_group / 4;
  t.weights = tensor_map(
      t.p.weights,
      {.type = CU_TENSOR_MAP_DATA_TYPE_UINT32,
       .sizes = {words, static_cast<cuuint64_t>(t.p.groups), static_cast<cuuint64_t>(t.tiles)},
       .strides = {tile_group, static_cast<cuuint64_t>(t.p.tile_stride)},
       .box = {words, stage_groups, static_cast<cuuint32_t>(tiles)},
       .dimensions = 3});
  t.rows = tensor_map(reinterpret_cast<const std::byte*>(rows.out),
                      {.type = CU_TENSOR_MAP_DATA_TYPE_UINT32,
                       .sizes = {words, static_cast<cuuint64_t>(rows.rows / 16),
                                 static_cast<cuuint64_t>(rows.groups)},
                       .strides = {16 * row_bytes, static_cast<cuuint64_t>(rows.rows) * row_bytes},
                       .box = {words, static_cast<cuuint32_t>(box_rows / 16), stage_groups},
                       .dimensions = 3});
}

template <bool Half, int Rows, bool Gated>
void launch_few(task& t, const laid_out& rows, int blocks_a_tile, cudaStream_t stream) {
  using s = few_room<Rows>;
  static_assert(s::stages >= 2);
  describe(t, rows, s::tiles, Rows);
  const auto kernel = few_kernel<Half, Rows, Gated>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, s::shared_bytes),
        "room for a product's stages", 1, s::shared_bytes);
  const dim3 grid(static_cast<unsigned>((t.tiles + s::tiles - 1) / s::tiles),
                  static_cast<unsigned>((t.p.rows + Rows - 1) / Rows),
                  static_cast<unsigned>(blocks_a_tile));
  launch_early(kernel, grid, dim3(1, 1, grid.z), 2 * group_threads + 64, s::shared_bytes, stream,
               t);
}

template <bool Half, bool Gated>
void launch_many(task& t, const laid_out& rows, int items, int multiprocessors,
                 cudaStream_t stream) {
  describe(t, rows, many_room::tiles, many_rows);
  const auto kernel = many_kernel<Half, Gated>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             many_room::shared_bytes),
        "room for a product's stages", 1, many_room::shared_bytes);
  kernel<<<std::min(items, multiprocessors), 3 * group_threads, many_room::shared_bytes, stream>>>(
      t);
}

template <bool Half, bool Gated>
void launch(task& t, const laid_out& rows, int multiprocessors, cudaStream_t stream) {
  const int row_count = t.p.rows;
  const int items = (row_count + many_rows - 1) / many_rows *
                    ((t.tiles + many_room::tiles - 1) / many_room::tiles);
  // Blocks that leave half of the chip idle share their chunks with others.
  const int blocks = (t.tiles + 3) / 4 * ((row_count + 63) / 64);
  const int blocks_a_tile = 4 * blocks <= multiprocessors   ? 4
                            : 2 * blocks <= multiprocessors ? 2
                                                            : 1;
  if (row_count > 64 && 2 * items >= multiprocessors)
    launch_many<Half, Gated>(t, rows, items, multiprocessors, stream);
  else if (row_count > 32)
    launch_few<Half, 64, Gated>(t, rows, blocks_a_tile, stream);
  else if (row_count > 16)
    launch_few<Half, 32, Gated>(t, rows, blocks_a_tile, stream);
  else
    launch_few<Half, 16, Gated>(t, rows, blocks_a_tile, stream);
  launched("a product of rows", t.p.rows, t.p.outputs);
}

}  // namespace

void hopper_rows_product(weight_format format, rows_in x, product p, std::byte* room,
                         int multiprocessors, cudaStream_t stream) {
  ensure(p.experts == nullptr && p.x_row == nullptr, "one product of rows as they come");
  const std::int64_t rows = prepared_row_count(x.rows);
  const std::int64_t groups = p.groups;
  const bool half = format == weight_format::f16;
  const laid_out to{rows, groups, reinterpret_cast<uint4*>(room)};
  if (p.norm != nullptr) {
    launch_early(half ? lay_out_normed_rows<true> : lay_out_normed_rows<false>,
                 dim3(static_cast<unsigned>(rows)), threads_for(x.columns), 0, stream, x, p.norm,
                 p.norm_eps, to);
  } else {
    const auto blocks = static_cast<unsigned>((rows * groups * 4 + 255) / 256);
    launch_early(half ? lay_out_rows<true> : lay_out_rows<false>, dim3(blocks), 256, 0, stream, x,
                 to);
  }
  launched("laying out a product's rows", x.rows, x.columns);
  task t{};
  t.p = p;
  t.tiles = (p.outputs + tile_outputs - 1) / tile_outputs * (p.gated ? 2 : 1);
  if (half && p.gated) return launch<true, true>(t, to, multiprocessors, stream);
  if (half) return launch<true, false>(t, to, multiprocessors, stream);
  if (p.gated) return launch<false, true>(t, to, multiprocessors, stream);
  launch<false, false>(t, to, multiprocessors, stream);
}

}  // namespace tandem::kernels::cuda
