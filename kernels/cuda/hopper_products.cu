// A block has 128 rows of the result by 256, 192 or 128 columns and goes from tile to tile. One
// warpgroup brings boxes of both operands, 64 of the inner side at a time, into a ring of stages;
// two multiply, 64 rows each. Traffic: each operand once for each tile of the other, mostly from
// the second cache. At 128 by 256 the two warpgroups read 80 bytes of shared memory a cycle and the
// copies write 48: all it has, while the tensor cores are busy throughout.
#include "kernels/cuda/hopper_products.cuh"

#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/hopper_mma.cuh"
#include "kernels/cuda/products_mma.cuh"
#include "kernels/cuda/tensor_map.hpp"

#include <algorithm>

namespace tandem::kernels::cuda {
namespace {

constexpr int group_threads = 128;
constexpr int threads = 3 * group_threads;
constexpr int tile_rows = 128;
constexpr int inner = 64;                // of a stage: a line of 128 bytes
constexpr int most_shared = 227 * 1024;  // of a block
constexpr int levels_shared = 2;         // of sums that wait; deeper ones lie in global memory
constexpr int levels_global = 4;         // together as many as 64 slots want

enum class product_kind : std::uint8_t { forward, input, weights };

// forward: rows T, columns Y, inner X. input: rows T, columns X, inner Y. weights: rows Y, columns
// X, inner T.
struct task {
  CUtensorMap a;
  CUtensorMap b;
  std::int32_t rows;
  std::int32_t columns;
  std::int32_t inner;
  std::int32_t tiles_m;
  std::int32_t items;  // tiles, or tiles of each slot
  float* out;
  std::int64_t out_stride;  // floats; of weights, of a tile of 16 outputs
  const float* bias;
  bool add;
  bool pairs;  // two columns of `out` may be stored at a time
  // Of weights. Slots apart: each one's sums go to `out` of its own, slot_stride floats on.
  const slot_step* steps;
  std::int32_t step_count;
  bool apart;
  std::int64_t slot_stride;
  float* waiting;
};

template <product_kind Kind, int Columns>
struct shape {
  // Lines of the operand run along rows (columns), not along the inner side.
  static constexpr bool a_turned = Kind == product_kind::weights;
  static constexpr bool b_turned = Kind != product_kind::forward;
  static constexpr int a_bytes = tile_rows * inner * 2;
  static constexpr int stage_bytes = a_bytes + Columns * inner * 2;
  static constexpr int sums = Columns / 2;
  static constexpr int level_bytes = 2 * group_threads * sums * static_cast<int>(sizeof(float));
  static constexpr int stack_bytes =
      Kind == product_kind::weights ? levels_shared * level_bytes : 0;
  static constexpr int line_up = 1024;  // what swizzled boxes start at
  static constexpr int stages =
      std::min((most_shared - line_up - 128 - stack_bytes) / stage_bytes, 4);
  static constexpr int shared_bytes = line_up + stages * stage_bytes + stack_bytes + 128;
};

#ifdef TANDEM_HOPPER

constexpr int box_bytes = 64 * 128;  // 64 lines

struct inner_range {
  std::int32_t begin;
  std::int32_t end;
};

// Calls f(range, adds) for the ranges of the inner side that an item sums, in their order.
template <product_kind Kind, class F>
__device__ void each_range(const task& p, int slot, F&& f) {
  if constexpr (Kind != product_kind::weights) {
    f(inner_range{0, p.inner}, 0);
  } else {
    const int first = p.apart ? slot : 0;
    const int end = p.apart ? slot + 1 : p.step_count;
#pragma unroll 1
    for (int i = first; i < end; ++i) {
      const slot_step step = p.steps[i];
      f(inner_range{step.first_row, step.first_row + step.row_count}, p.apart ? 0 : step.adds);
    }
  }
}

template <product_kind Kind, int Columns>
__device__ void bring(const task& p, unsigned stages, unsigned full, unsigned empty) {
  using s = shape<Kind, Columns>;
  ring_place<s::stages> at;
  const int tiles = p.items / (p.apart ? p.step_count : 1);
#pragma unroll 1
  for (int item = static_cast<int>(blockIdx.x); item < p.items;
       item += static_cast<int>(gridDim.x)) {
    const int first_row = item % tiles % p.tiles_m * tile_rows;
    const int first_column = item % tiles / p.tiles_m * Columns;
    each_range<Kind>(p, item / tiles, [&](inner_range range, int) {
#pragma unroll 1
      for (int k = range.begin; k < range.end; k += inner) {
        wait_for(empty + at.stage * 8, at.parity ^ 1U);
        const unsigned barrier = full + at.stage * 8;
        expect_bytes(barrier, s::stage_bytes);
        const unsigned a = stages + at.stage * s::stage_bytes;
        const unsigned b = a + s::a_bytes;
        if constexpr (s::a_turned) {
          bring_box(a, p.a, first_row, k, barrier);
          bring_box(a + box_bytes, p.a, first_row + 64, k, barrier);
        } else {
          bring_box(a, p.a, k, first_row, barrier);
        }
        if constexpr (s::b_turned) {
#pragma unroll
          for (int i = 0; i < Columns / 64; ++i)
            bring_box(b + i * box_bytes, p.b, first_column + i * 64, k, barrier);
        } else {
          bring_box(b, p.b, k, first_column, barrier);
        }
        at.next();
      }
    });
  }
}

// The row of a thread's sums: two neighbouring columns of each eight.
template <product_kind Kind>
struct output_row {
  float* at;  // of the first two columns
  const float* bias;
  std::int32_t left;  // columns from there on; none of a row that is not there

  __device__ output_row(const task& p, float* out, int row, int column)
      : bias(p.bias == nullptr ? nullptr : p.bias + column),
        left(row < p.rows ? p.columns - column : 0) {
    if constexpr (Kind == product_kind::weights)
      at = out + row / tile_outputs * p.out_stride + std::int64_t{column} * tile_outputs +
           row % tile_outputs;
    else
      at = out + row * p.out_stride + column;
  }
  static constexpr int step = Kind == product_kind::weights ? tile_outputs : 1;  // of a column
  __device__ float2 load(int n, bool pairs) const {
    const float* const from = at + n * 8 * step;
    if (Kind != product_kind::weights && pairs && n * 8 + 1 < left)
      return *reinterpret_cast<const float2*>(from);
    return {n * 8 < left ? from[0] : 0.0F, n * 8 + 1 < left ? from[step] : 0.0F};
  }
  __device__ void store(int n, bool pairs, float2 v) const {
    float* const to = at + n * 8 * step;
    if (Kind != product_kind::weights && pairs && n * 8 + 1 < left) {
      *reinterpret_cast<float2*>(to) = v;
      return;
    }
    if (n * 8 < left) to[0] = v.x;
    if (n * 8 + 1 < left) to[step] = v.y;
  }
};

template <product_kind Kind, int Columns>
__device__ void put_tile(const task& p, const float (&sums)[Columns / 2], int first_row,
                         int first_column, float* out) {
  constexpr int together = 8;  // loads under way
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) % group_threads / 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const output_row<Kind> to(p, out, first_row + warp * 16 + half * 8 + lane / 4,
                              first_column + lane % 4 * 2);
#pragma unroll
    for (int first = 0; first < Columns / 8; first += together) {
      float2 held[together] = {};
      if (p.add) {
#pragma unroll
        for (int i = 0; i < together; ++i) held[i] = to.load(first + i, p.pairs);
      }
#pragma unroll
      for (int i = 0; i < together; ++i) {
        const int n = first + i;
        float2 v{sums[n * 4 + half * 2], sums[n * 4 + half * 2 + 1]};
        if (to.bias != nullptr) {
          if (n * 8 < to.left) v.x = __fadd_rn(v.x, to.bias[n * 8]);
          if (n * 8 + 1 < to.left) v.y = __fadd_rn(v.y, to.bias[n * 8 + 1]);
        }
        if (p.add) v = {__fadd_rn(held[i].x, v.x), __fadd_rn(held[i].y, v.y)};
        to.store(n, p.pairs, v);
      }
      asm volatile("" ::: "memory");  // the next loads not before
    }
  }
}

// Rows of a turned box from `valid` on become zero, by the warpgroup that multiplies with it.
__device__ inline void cut_box(unsigned box, int valid, int name) {
  const int thread = static_cast<int>(threadIdx.x) % group_threads;
  for (int piece = valid * 8 + thread; piece < 64 * 8; piece += group_threads)
    asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(box + piece * 16), "r"(0)
                 : "memory");
  show_stores();
  meet(name);
}

template <product_kind Kind, int Columns>
__device__ void multiply_tiles(const task& p, unsigned stages, unsigned full, unsigned empty,
                               float* stack) {
  using s = shape<Kind, Columns>;
  const int group = static_cast<int>(threadIdx.x) / group_threads - 1;
  const int thread = static_cast<int>(threadIdx.x) - group_threads;
  const bool speaks = threadIdx.x % group_threads == 0;
  ring_place<s::stages> at;
  const int tiles = p.items / (p.apart ? p.step_count : 1);
#pragma unroll 1
  for (int item = static_cast<int>(blockIdx.x); item < p.items;
       item += static_cast<int>(gridDim.x)) {
    float sums[s::sums];
    int depth = 0;
    // This thread's sums that wait on a level, 256 floats apart.
    const auto waiting_on = [&](int level) {
      constexpr int level_floats = s::sums * 2 * group_threads;
      if (level < levels_shared) return stack + level * level_floats + thread;
      return p.waiting + thread +
             (std::int64_t{blockIdx.x} * levels_global + level - levels_shared) * level_floats;
    };
    bool first = true;
    each_range<Kind>(p, item / tiles, [&](inner_range range, int adds) {
      if constexpr (Kind == product_kind::weights) {
        if (!first) {
          float* const to = waiting_on(depth++);
#pragma unroll
          for (int i = 0; i < s::sums; ++i) to[i * 2 * group_threads] = sums[i];
        }
      }
      settle(sums);
      int held = -1;  // the stage whose products may still be under way
#pragma unroll 1
      for (int k = range.begin; k < range.end; k += inner) {
        const unsigned a = stages + at.stage * s::stage_bytes + group * box_bytes;
        const unsigned b = stages + at.stage * s::stage_bytes + s::a_bytes;
        wait_for(full + at.stage * 8, at.parity);
        if constexpr (Kind == product_kind::weights) {
          if (range.end - k < inner) cut_box(a, range.end - k, 1 + group);
        }
        begin_multiplying();
#pragma unroll
        for (int i = 0; i < inner / 16; ++i) {
          const unsigned a_step = s::a_turned ? 2048 : 32;
          const unsigned b_step = s::b_turned ? 2048 : 32;
          multiply_64<s::a_turned, s::b_turned>(sums, operand_at(a + i * a_step, box_bytes),
                                                operand_at(b + i * b_step, box_bytes),
                                                k > range.begin || i > 0 ? 1 : 0);
        }
        close_multiplying();
        wait_multiplied<1>();
        if (held >= 0 && speaks) arrive(empty + held * 8);
        held = at.stage;
        at.next();
      }
      wait_multiplied<0>();
      settle(sums);
      if (held >= 0 && speaks) arrive(empty + held * 8);
      if constexpr (Kind == product_kind::weights) {
        first = false;
#pragma unroll 1
        for (int n = 0; n < adds; ++n) {
          const float* const from = waiting_on(--depth);
#pragma unroll
          for (int i = 0; i < s::sums; ++i)
            sums[i] = __fadd_rn(from[i * 2 * group_threads], sums[i]);
        }
      }
    });
    put_tile<Kind, Columns>(p, sums, item % tiles % p.tiles_m * tile_rows + group * 64,
                            item % tiles / p.tiles_m * Columns,
                            p.out + (p.apart ? item / tiles * p.slot_stride : 0));
  }
}

#endif

template <product_kind Kind, int Columns>
__global__ __launch_bounds__(threads, 1) void hopper_kernel(const __grid_constant__ task p) {
#ifdef TANDEM_HOPPER
  using s = shape<Kind, Columns>;
  extern __shared__ uint4 shared_memory[];
  const unsigned start = (shared_address(shared_memory) + s::line_up - 1) / s::line_up * s::line_up;
  const unsigned stages = start;
  const unsigned stack = stages + s::stages * s::stage_bytes;
  const unsigned full = stack + s::stack_bytes;
  const unsigned empty = full + s::stages * 8;
  if (threadIdx.x == 0) {
    for (int i = 0; i < s::stages; ++i) {
      open_barrier(full + i * 8, 1);
      open_barrier(empty + i * 8, 2);
    }
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x < group_threads) {
    give_registers<40>();
    if (threadIdx.x == 0) bring<Kind, Columns>(p, stages, full, empty);
  } else {
    take_registers<232>();
    auto* const base = reinterpret_cast<std::byte*>(shared_memory);
    multiply_tiles<Kind, Columns>(
        p, stages, full, empty,
        reinterpret_cast<float*>(base + (stack - shared_address(shared_memory))));
  }
#else
  __trap();  // has_wgmma says no
#endif
}

// to += the slot tree of what each slot came to, a thread four numbers.
__global__ void add_slots(const float* sums, std::int64_t slot_stride, const slot_step* steps,
                          std::int32_t step_count, std::int64_t count, float* to) {
  const std::int64_t at = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * 4;
  if (at >= count) return;
  const auto add = [](float4 a, float4 b) {
    return float4{__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z),
                  __fadd_rn(a.w, b.w)};
  };
  float4 waiting[levels_shared + levels_global];
  float4 sum{};
  int depth = 0;
  for (std::int32_t i = 0; i < step_count; ++i) {
    if (i > 0) waiting[depth++] = sum;
    sum = *reinterpret_cast<const float4*>(sums + i * slot_stride + at);
    for (std::int32_t n = 0; n < steps[i].adds; ++n) sum = add(waiting[--depth], sum);
  }
  auto* const into = reinterpret_cast<float4*>(to + at);
  *into = add(*into, sum);
}

// Boxes of 64 columns and `lines` rows.
CUtensorMap map_of(const rounded_rows& table, int lines) {
  const tensor_shape shape{
      .type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
      .sizes = {static_cast<cuuint64_t>(table.columns), static_cast<cuuint64_t>(table.rows), 1},
      .strides = {static_cast<cuuint64_t>(table.columns) * 2, 0},
      .box = {64, static_cast<cuuint32_t>(lines), 1},
      .dimensions = 2,
      .swizzle = CU_TENSOR_MAP_SWIZZLE_128B};
  return tensor_map(table.data, shape);
}

std::int64_t pieces(std::int64_t count, std::int64_t each) { return (count + each - 1) / each; }

template <product_kind Kind, int Columns>
void launch(task& p, const rounded_rows& a, const rounded_rows& b, int multiprocessors,
            cudaStream_t stream) {
  using s = shape<Kind, Columns>;
  p.a = map_of(a, s::a_turned ? 64 : tile_rows);
  p.b = map_of(b, s::b_turned ? 64 : Columns);
  p.tiles_m = static_cast<std::int32_t>(pieces(p.rows, tile_rows));
  p.items = p.tiles_m * static_cast<std::int32_t>(pieces(p.columns, Columns)) *
            (p.apart ? p.step_count : 1);
  check(cudaFuncSetAttribute(hopper_kernel<Kind, Columns>,
                             cudaFuncAttributeMaxDynamicSharedMemorySize, s::shared_bytes),
        "room for a product's stages", 1, s::shared_bytes);
  const int blocks = std::min(p.items, multiprocessors);
  hopper_kernel<Kind, Columns><<<blocks, threads, s::shared_bytes, stream>>>(p);
  launched("a rounded product", p.rows, p.columns);
}

// The width whose rounds of tiles cost least; a tile's own cost is about 32 columns'.
template <product_kind Kind>
void launch_width(task& p, const rounded_rows& a, const rounded_rows& b, int multiprocessors,
                  cudaStream_t stream) {
  const auto cost = [&](int width) {
    const auto tiles = pieces(p.rows, tile_rows) * pieces(p.columns, width);
    return pieces(tiles, multiprocessors) * (width + 32);
  };
  if (cost(256) <= cost(192) && cost(256) <= cost(128))
    return launch<Kind, 256>(p, a, b, multiprocessors, stream);
  if (cost(192) <= cost(128)) return launch<Kind, 192>(p, a, b, multiprocessors, stream);
  launch<Kind, 128>(p, a, b, multiprocessors, stream);
}

task rows_task(std::int64_t inner_size, bool add, const rows_out& y) {
  task p{};
  p.rows = static_cast<std::int32_t>(y.rows);
  p.columns = static_cast<std::int32_t>(y.columns);
  p.inner = static_cast<std::int32_t>(inner_size);
  p.out = y.data;
  p.out_stride = y.stride;
  p.add = add;
  p.pairs = reinterpret_cast<std::uintptr_t>(y.data) % 8 == 0 && y.stride % 2 == 0;
  return p;
}

// Of the weights' gradient a tile has 128 columns: half as many sums a thread leave room for those
// that wait.
constexpr int weights_columns = 128;
using weights_shape = shape<product_kind::weights, weights_columns>;

}  // namespace

bool has_wgmma(int gpu) {
  int major = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, gpu),
        "asking for the compute capability");
  return major == 9;
}

void hopper_product(const rounded_rows& x_TX, const rounded_rows& w_YX, const float* bias_Y,
                    bool add, rows_out y_TY, int multiprocessors, cudaStream_t stream) {
  task p = rows_task(x_TX.columns, add, y_TY);
  p.bias = bias_Y;
  launch_width<product_kind::forward>(p, x_TX, w_YX, multiprocessors, stream);
}

void hopper_product_backward(const rounded_rows& dy_TY, const rounded_rows& w_YX, bool add,
                             rows_out dx_TX, int multiprocessors, cudaStream_t stream) {
  task p = rows_task(dy_TY.columns, add, dx_TX);
  launch_width<product_kind::input>(p, dy_TY, w_YX, multiprocessors, stream);
}

std::size_t hopper_slot_room(int multiprocessors) {
  return static_cast<std::size_t>(multiprocessors) * levels_global * weights_shape::level_bytes;
}

bool can_add_on_hopper(const slot_program& program) {
  return program.depth <= levels_shared + levels_global;
}

void hopper_weights_backward(const rounded_rows& dy_TY, const rounded_rows& x_TX,
                             const slot_step* steps, const slot_program& program,
                             const packed_matrix& dw_YX, float* room, int multiprocessors,
                             cudaStream_t stream) {
  task p{};
  p.rows = static_cast<std::int32_t>(dw_YX.rows);
  p.columns = static_cast<std::int32_t>(dw_YX.columns);
  p.out = reinterpret_cast<float*>(dw_YX.data);
  p.out_stride = dw_YX.columns * tile_outputs;
  p.add = true;
  p.steps = steps;
  p.step_count = static_cast<std::int32_t>(program.steps.size());
  p.waiting = room;
  // Few tiles leave multiprocessors idle: then each slot is summed by itself.
  const auto tiles = pieces(p.rows, tile_rows) * pieces(p.columns, weights_columns);
  const std::int64_t count = tiles_of(dw_YX.rows) * tile_outputs * dw_YX.columns;
  const auto fits = static_cast<std::size_t>(count * p.step_count) * sizeof(float) <=
                    hopper_slot_room(multiprocessors);
  if (p.step_count > 1 && tiles < 2 * multiprocessors && fits) {
    p.apart = true;
    p.rows = static_cast<std::int32_t>(tiles_of(dw_YX.rows) * tile_outputs);  // zeros are sums, too
    p.slot_stride = count;
    p.out = room;
    p.add = false;
    launch<product_kind::weights, weights_columns>(p, dy_TY, x_TX, multiprocessors, stream);
    add_slots<<<static_cast<unsigned>(pieces(count / 4, 256)), 256, 0, stream>>>(
        room, count, steps, p.step_count, count, reinterpret_cast<float*>(dw_YX.data));
    launched("sums of slots", dw_YX.rows, dw_YX.columns);
    return;
  }
  launch<product_kind::weights, weights_columns>(p, dy_TY, x_TX, multiprocessors, stream);
}

}  // namespace tandem::kernels::cuda
