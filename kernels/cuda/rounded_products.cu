// A block of 256 threads has 128 rows of the result by 128, 64 or 32 columns; operands pass through
// shared memory 32 of the inner side at a time, in four stages of cp.async. Pieces of 16 bytes are
// swizzled so that ldmatrix's eight rows lie in different banks. Traffic: each operand once for
// each tile of the other, mostly from the second cache.
#include "kernels/cuda/rounded_products.cuh"

#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/products_mma.cuh"
#include "kernels/cuda/rounding.cuh"

#include <algorithm>

namespace tandem::kernels::cuda {
namespace {

constexpr int threads = 256;
constexpr int block_rows = 128;
constexpr int inner = 32;  // of a stage
constexpr int stages = 4;

enum class product_kind : std::uint8_t { forward, input, weights };

// forward: rows T, columns Y, inner X. input: rows T, columns X, inner Y. weights: rows Y, columns
// X, inner T. Strides are elements; of a matrix, of its tiles.
struct task {
  const __nv_bfloat16* a;
  std::int64_t a_stride;
  const __nv_bfloat16* b;
  std::int64_t b_stride;
  std::int32_t rows;
  std::int32_t columns;
  std::int32_t inner;
  float* out;
  std::int64_t out_stride;  // floats; of weights, of a tile
  const float* bias;
  bool add;
  bool pairs;  // two columns of `out` may be stored at a time
  const slot_step* steps;
  std::int32_t step_count;
};

template <int Left>
__device__ void wait_stages() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
}

// Places of 16 bytes in a stage: rows of 64 bytes, where an inner chunk of a row lies, and rows of
// 2 * Width, where a row's or column's chunk at an inner place lies.
__device__ int at_row(int row, int chunk) { return row * 64 + (chunk ^ (row >> 1 & 3)) * 16; }
template <int Width>
__device__ int at_inner(int place, int chunk) {
  return place * 2 * Width + (chunk ^ (place & 7)) * 16;
}

template <product_kind Kind, int Columns>
struct shape {
  static constexpr int warps_n = Columns / 32;
  static constexpr int warps_m = 8 / warps_n;
  static constexpr int tiles_m = block_rows / warps_m / 16;  // of 16 rows a warp
  static constexpr int a_bytes = block_rows * inner * 2;
  static constexpr int stage_bytes = a_bytes + Columns * inner * 2;
  static constexpr int sums = tiles_m * 4 * 4;
  static constexpr int level_bytes = threads * sums * static_cast<int>(sizeof(float));
};

// What one thread brings of a stage: pieces of 16 bytes of both operands, where the first inner
// place has them. A step along the inner side is `step` elements; pieces beyond an edge are zeros.
template <product_kind Kind, int Columns>
struct pieces {
  using s = shape<Kind, Columns>;
  static constexpr int a_count = s::a_bytes / 16 / threads;
  static constexpr int b_all = Columns * inner * 2 / 16;
  static constexpr int b_count = (b_all + threads - 1) / threads;
  const __nv_bfloat16* a[a_count];
  const __nv_bfloat16* b[b_count];
  bool a_there[a_count];
  bool b_there[b_count];

  __device__ pieces(const task& p, std::int64_t first_row, std::int64_t first_column) {
#pragma unroll
    for (int i = 0; i < a_count; ++i) {
      const int n = piece(i);
      if constexpr (Kind == product_kind::weights) {
        const std::int64_t row = first_row + n % 16 * 8;
        a_there[i] = row < p.a_stride;
        a[i] = p.a + (a_there[i] ? n / 16 * p.a_stride + row : 0);
      } else {
        a_there[i] = first_row + n / 4 < p.rows;
        a[i] = p.a + (a_there[i] ? (first_row + n / 4) * p.a_stride : 0) + n % 4 * 8;
      }
    }
#pragma unroll
    for (int i = 0; i < b_count; ++i) {
      const int n = piece(i);
      if constexpr (Kind == product_kind::forward) {
        const std::int64_t column = first_column + n / 64 * tile_outputs;
        b_there[i] = column < p.columns;
        b[i] = p.b + (b_there[i] ? column / tile_outputs * p.b_stride : 0) +
               n % 64 / 2 * tile_outputs + n % 2 * 8;
      } else if constexpr (Kind == product_kind::input) {
        const std::int64_t column = first_column + n % (2 * Columns) / 2;
        b_there[i] = column * tile_outputs < p.b_stride;
        b[i] = p.b + n / (2 * Columns) * p.b_stride + (b_there[i] ? column * tile_outputs : 0) +
               n % 2 * 8;
      } else {
        const std::int64_t column = first_column + n % (Columns / 8) * 8;
        b_there[i] = column < p.b_stride && n < b_all;
        b[i] = p.b + (b_there[i] ? n / (Columns / 8) * p.b_stride + column : 0);
      }
    }
  }

  // Inner places from `from` on, 32 or until `end`.
  __device__ void bring(const task& p, std::int64_t from, std::int64_t end, unsigned stage) const {
    constexpr bool along_rows = Kind == product_kind::weights;
#pragma unroll
    for (int i = 0; i < a_count; ++i) {
      const int n = piece(i);
      const bool there = a_there[i] && (!along_rows || from + n / 16 < end);
      copy_16(stage + (along_rows ? at_inner<block_rows>(n / 16, n % 16) : at_row(n / 4, n % 4)),
              a[i] + (there ? from * (along_rows ? p.a_stride : 1) : 0), there);
    }
    stage += s::a_bytes;
#pragma unroll
    for (int i = 0; i < b_count; ++i) {
      const int n = piece(i);
      if (b_all < threads && n >= b_all) break;
      if constexpr (Kind == product_kind::forward) {
        copy_16(stage + at_inner<Columns>(n % 64 / 2, n / 64 * 2 + n % 2),
                b[i] + from * tile_outputs, b_there[i]);
      } else if constexpr (Kind == product_kind::input) {
        copy_16(stage + at_row(n % (2 * Columns) / 2, n / (2 * Columns) * 2 + n % 2),
                b[i] + from / tile_outputs * p.b_stride, b_there[i]);
      } else {
        const int place = n / (Columns / 8);
        const bool there = b_there[i] && from + place < end;
        copy_16(stage + at_inner<Columns>(place, n % (Columns / 8)),
                b[i] + (there ? from * p.b_stride : 0), there);
      }
    }
  }

 private:
  __device__ static int piece(int i) { return static_cast<int>(threadIdx.x) + i * threads; }
};

// Where a lane finds its rows of the operands' matrices within a stage: of a for each half of the
// stage or tile of rows, of b for each half or pair of column tiles.
template <product_kind Kind, int Columns>
struct lane_places {
  using s = shape<Kind, Columns>;
  static constexpr bool a_turned = Kind == product_kind::weights;
  static constexpr bool b_turned = Kind != product_kind::input;
  unsigned a[a_turned ? s::tiles_m : 2];
  unsigned b[2];

  __device__ lane_places(int first_m, int first_n, int lane) {
    if constexpr (a_turned) {
#pragma unroll
      for (int m = 0; m < s::tiles_m; ++m)
        a[m] =
            at_inner<block_rows>(lane / 16 * 8 + lane % 8, (first_m + m * 16) / 8 + lane / 8 % 2);
    } else {
#pragma unroll
      for (int half = 0; half < 2; ++half)
        a[half] = at_row(first_m + lane % 16, half * 2 + lane / 16);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i)
      b[i] = s::a_bytes + (b_turned
                               ? at_inner<Columns>(lane / 8 % 2 * 8 + lane % 8,
                                                   (first_n + i * 16) / 8 + lane / 16)
                               : at_row(first_n + lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));
  }
  __device__ void load_a(unsigned stage, int half, int m, std::uint32_t (&to)[4]) const {
    if constexpr (a_turned)
      load_matrices_turned(to, stage + a[m] + half * 16 * 2 * block_rows);
    else
      load_matrices(to, stage + a[half] + m * 16 * 64);
  }
  __device__ void load_b(unsigned stage, int half, int pair, std::uint32_t (&to)[4]) const {
    if constexpr (b_turned)
      load_matrices_turned(to, stage + b[pair] + half * 16 * 2 * Columns);
    else
      load_matrices(to, stage + b[half] + pair * 16 * 64);
  }
};

template <product_kind Kind, int Columns, int M>
__device__ void multiply_stage(unsigned stage, const lane_places<Kind, Columns>& places,
                               float (&sums)[M][4][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    std::uint32_t of_b[2][4];
    places.load_b(stage, half, 0, of_b[0]);
    places.load_b(stage, half, 1, of_b[1]);
#pragma unroll
    for (int m = 0; m < M; ++m) {
      std::uint32_t a[4];
      places.load_a(stage, half, m, a);
#pragma unroll
      for (int n = 0; n < 4; ++n)
        multiply_bf16(sums[m][n], a[0], a[1], a[2], a[3], of_b[n / 2][n % 2 * 2],
                      of_b[n / 2][n % 2 * 2 + 1]);
    }
  }
}

template <product_kind Kind, int Columns>
__global__ __launch_bounds__(threads, Kind == product_kind::weights
                                          ? 1
                                          : 2) void rounded_kernel(const task p) {
  using s = shape<Kind, Columns>;
  extern __shared__ uint4 shared_memory[];
  const unsigned shared = shared_address(shared_memory);
  auto* const stack = reinterpret_cast<float*>(shared_memory) + stages * s::stage_bytes / 4;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int first_m = thread / 32 / s::warps_n * s::tiles_m * 16;
  const int first_n = thread / 32 % s::warps_n * 32;
  const std::int64_t first_row = std::int64_t{blockIdx.x} * block_rows;
  const std::int64_t first_column = std::int64_t{blockIdx.y} * Columns;

  const lane_places<Kind, Columns> places(first_m, first_n, lane);
  const pieces<Kind, Columns> mine(p, first_row, first_column);
  float sums[s::tiles_m][4][4] = {};
  const auto each = [&](auto&& f) {
#pragma unroll
    for (int m = 0; m < s::tiles_m; ++m) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) f(m, n, i);
      }
    }
  };
  const auto add_range = [&](std::int64_t begin, std::int64_t end) {
    const auto count = static_cast<int>((end - begin + inner - 1) / inner);
    const auto load = [&](int i) {
      if (i < count) mine.bring(p, begin + i * inner, end, shared + i % stages * s::stage_bytes);
      close_copies();
    };
#pragma unroll
    for (int i = 0; i < stages - 1; ++i) load(i);
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
      wait_stages<stages - 2>();
      __syncthreads();
      load(i + stages - 1);
      multiply_stage(shared + i % stages * s::stage_bytes, places, sums);
    }
    __syncthreads();  // nobody reads what the next range brings
  };

  if constexpr (Kind != product_kind::weights) {
    add_range(0, p.inner);
  } else {
    const auto waiting = [&](int level, int m, int n, int i) -> float& {
      return stack[(level * s::sums + (m * 4 + n) * 4 + i) * threads + thread];
    };
    int depth = 0;
#pragma unroll 1
    for (std::int32_t step = 0; step < p.step_count; ++step) {
      if (step > 0) {
        each([&](int m, int n, int i) {
          waiting(depth, m, n, i) = sums[m][n][i];
          sums[m][n][i] = 0.0F;
        });
        ++depth;
      }
      const slot_step slot = p.steps[step];
      add_range(slot.first_row, std::int64_t{slot.first_row} + slot.row_count);
#pragma unroll 1
      for (std::int32_t n = 0; n < slot.adds; ++n) {
        --depth;
        each([&](int m, int nn, int i) {
          sums[m][nn][i] = __fadd_rn(waiting(depth, m, nn, i), sums[m][nn][i]);
        });
      }
    }
  }

#pragma unroll
  for (int m = 0; m < s::tiles_m; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int64_t row = first_row + first_m + m * 16 + half * 8 + lane / 4;
      if (row >= p.rows) continue;
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const std::int64_t column = first_column + first_n + n * 8 + lane % 4 * 2;
        if (column >= p.columns) continue;
        const bool both = column + 1 < p.columns;
        float one = sums[m][n][half * 2];
        float other = sums[m][n][half * 2 + 1];
        if constexpr (Kind == product_kind::weights) {
          float* const to = p.out + row / tile_outputs * p.out_stride + column * tile_outputs +
                            row % tile_outputs;
          to[0] = __fadd_rn(to[0], one);
          if (both) to[tile_outputs] = __fadd_rn(to[tile_outputs], other);
        } else {
          float* const to = p.out + row * p.out_stride + column;
          if (p.bias != nullptr) {
            one = __fadd_rn(one, p.bias[column]);
            if (both) other = __fadd_rn(other, p.bias[column + 1]);
          }
          if (both && p.pairs) {
            auto* const pair = reinterpret_cast<float2*>(to);
            if (p.add) {
              const float2 held = *pair;
              one = __fadd_rn(held.x, one);
              other = __fadd_rn(held.y, other);
            }
            *pair = {one, other};
          } else {
            to[0] = p.add ? __fadd_rn(to[0], one) : one;
            if (both) to[1] = p.add ? __fadd_rn(to[1], other) : other;
          }
        }
      }
    }
  }
}

// One thread: eight columns of a row.
__global__ void round_rows_kernel(rows_in x, bool aligned, std::int64_t columns, uint4* out) {
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t row = at / (columns / 8);
  if (row >= x.rows) return;
  float v[8];
  load_columns(x.data + row * x.stride, at % (columns / 8) * 8, x.columns, aligned, v);
  out[at] = eight_bf16(v);
}

// One thread: eight columns of a row; sixteen neighbours are a tile's rows.
__global__ void round_matrix_kernel(weight_format format, const std::byte* packed,
                                    std::int64_t tiles, std::int64_t columns,
                                    std::int64_t padded_columns, __nv_bfloat16* out) {
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int row = static_cast<int>(at % tile_outputs);
  const std::int64_t column = at / tile_outputs % (padded_columns / 8) * 8;
  const std::int64_t tile = at / tile_outputs / (padded_columns / 8);
  if (tile >= tiles) return;
  float v[8] = {};
  if (column < columns)
    load_eight(format, packed + tile * tile_bytes(format, columns), row, column, columns, v);
  __nv_bfloat16* const to = out + (tile * padded_columns + column) * tile_outputs + row;
#pragma unroll
  for (int i = 0; i < 8; ++i) to[i * tile_outputs] = __float2bfloat16_rn(v[i]);
}

// The same threads; a row's columns lie together.
__global__ void round_matrix_rows_kernel(weight_format format, const std::byte* packed,
                                         std::int64_t tiles, std::int64_t columns,
                                         std::int64_t padded_columns, uint4* out) {
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int row = static_cast<int>(at % tile_outputs);
  const std::int64_t column = at / tile_outputs % (padded_columns / 8) * 8;
  const std::int64_t tile = at / tile_outputs / (padded_columns / 8);
  if (tile >= tiles) return;
  float v[8] = {};
  if (column < columns)
    load_eight(format, packed + tile * tile_bytes(format, columns), row, column, columns, v);
  out[((tile * tile_outputs + row) * padded_columns + column) / 8] = eight_bf16(v);
}

unsigned blocks_of(std::int64_t count, std::int64_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

template <product_kind Kind, int Columns>
void launch(const task& p, int stack_levels, cudaStream_t stream) {
  using s = shape<Kind, Columns>;
  const int shared = stages * s::stage_bytes + stack_levels * s::level_bytes;
  check(cudaFuncSetAttribute(rounded_kernel<Kind, Columns>,
                             cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
        "room for a product's stages", 1, shared);
  const dim3 grid(blocks_of(p.rows, block_rows), blocks_of(p.columns, Columns));
  rounded_kernel<Kind, Columns><<<grid, threads, static_cast<std::size_t>(shared), stream>>>(p);
  launched("a rounded product", p.rows, p.columns);
}

const __nv_bfloat16* numbers(const std::byte* data) {
  return reinterpret_cast<const __nv_bfloat16*>(data);
}
bool stores_pairs(const rows_out& y) {
  return reinterpret_cast<std::uintptr_t>(y.data) % 8 == 0 && y.stride % 2 == 0;
}

}  // namespace

rounded_rows round_rows(rows_in x, std::byte* room, cudaStream_t stream) {
  const std::int64_t columns = whole_32(x.columns);
  round_rows_kernel<<<blocks_of(x.rows * columns / 8, threads), threads, 0, stream>>>(
      x, loads_of_four(x), columns, reinterpret_cast<uint4*>(room));
  launched("rounding rows", x.rows, x.columns);
  return {room, x.rows, columns};
}

rounded_matrix round_matrix(const packed_matrix& w, std::byte* room, cudaStream_t stream) {
  const std::int64_t columns = whole_32(w.columns);
  const std::int64_t tiles = tiles_of(w.rows);
  round_matrix_kernel<<<blocks_of(tiles * columns * tile_outputs / 8, threads), threads, 0,
                        stream>>>(w.format, w.data, tiles, w.columns, columns,
                                  reinterpret_cast<__nv_bfloat16*>(room));
  launched("rounding weights", w.rows, w.columns);
  return {room, tiles, columns};
}

rounded_rows round_matrix_rows(const packed_matrix& w, std::byte* room, cudaStream_t stream) {
  const std::int64_t columns = whole_32(w.columns);
  const std::int64_t rows = tiles_of(w.rows) * tile_outputs;
  round_matrix_rows_kernel<<<blocks_of(rows * columns / 8, threads), threads, 0, stream>>>(
      w.format, w.data, rows / tile_outputs, w.columns, columns, reinterpret_cast<uint4*>(room));
  launched("rounding weights", w.rows, w.columns);
  return {room, rows, columns};
}

namespace {

// Rows of `a` by columns of `w`, along `a`'s columns.
task task_of(const rounded_rows& a, const rounded_matrix& w, bool add, const rows_out& y) {
  task p{};
  p.a = numbers(a.data);
  p.a_stride = a.columns;
  p.b = numbers(w.data);
  p.b_stride = w.columns * tile_outputs;
  p.rows = static_cast<std::int32_t>(y.rows);
  p.columns = static_cast<std::int32_t>(y.columns);
  p.inner = static_cast<std::int32_t>(a.columns);
  p.out = y.data;
  p.out_stride = y.stride;
  p.add = add;
  p.pairs = stores_pairs(y);
  return p;
}

// Of weights' gradients: columns of a block, by how many sums a block has room to keep waiting.
using wide = shape<product_kind::weights, 64>;
using narrow = shape<product_kind::weights, 32>;
template <class Shape>
bool has_room(const slot_program& program, int gpu) {
  int most = 0;
  check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, gpu),
        "asking for the shared memory");
  return stages * Shape::stage_bytes + program.depth * Shape::level_bytes <= most;
}

}  // namespace

void rounded_product(const rounded_rows& x_TX, const rounded_matrix& w_YX, const float* bias_Y,
                     bool add, rows_out y_TY, cudaStream_t stream) {
  task p = task_of(x_TX, w_YX, add, y_TY);
  p.bias = bias_Y;
  launch<product_kind::forward, 128>(p, 0, stream);
}

void rounded_product_backward(const rounded_rows& dy_TY, const rounded_matrix& w_YX, bool add,
                              rows_out dx_TX, cudaStream_t stream) {
  launch<product_kind::input, 128>(task_of(dy_TY, w_YX, add, dx_TX), 0, stream);
}

bool can_round_weights_backward(const slot_program& program, int gpu) {
  return has_room<narrow>(program, gpu);
}

void rounded_weights_backward(const rounded_rows& dy_TY, const rounded_rows& x_TX,
                              const slot_step* steps, const slot_program& program,
                              const packed_matrix& dw_YX, int gpu, cudaStream_t stream) {
  task p{};
  p.a = numbers(dy_TY.data);
  p.a_stride = dy_TY.columns;
  p.b = numbers(x_TX.data);
  p.b_stride = x_TX.columns;
  p.rows = static_cast<std::int32_t>(dw_YX.rows);
  p.columns = static_cast<std::int32_t>(dw_YX.columns);
  p.out = reinterpret_cast<float*>(dw_YX.data);
  p.out_stride = dw_YX.columns * tile_outputs;
  p.steps = steps;
  p.step_count = static_cast<std::int32_t>(program.steps.size());
  if (has_room<wide>(program, gpu))
    launch<product_kind::weights, 64>(p, program.depth, stream);
  else
    launch<product_kind::weights, 32>(p, program.depth, stream);
}

}  // namespace tandem::kernels::cuda
