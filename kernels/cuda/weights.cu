// Packing at load, reading rows back, and what takes rows of a table by their ids. The host turns a
// file's rows into the packed format's own (most need no change), the device puts them in place.
#include "kernels/cuda/weights.cuh"

#include "kernels/cpu/row_encoder.hpp"
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/op_checks.hpp"

#include <cuda_bf16.h>

#include <algorithm>
#include <numeric>

namespace tandem::kernels::cuda {
namespace {

constexpr int block_threads = 256;
constexpr std::int64_t piece_bytes = std::int64_t{8} << 20;

// Which rows of the packed matrix a piece's rows are: those of a matrix made by `pack`, or of one
// half of a gated one.
enum class row_kind : std::uint8_t { plain, gate, up };

struct packed_place {
  std::int64_t tile;
  int lane;
};
__host__ __device__ packed_place place_of(row_kind kind, std::int64_t row) {
  const std::int64_t tile = row / tile_outputs;
  const int lane = static_cast<int>(row % tile_outputs);
  if (kind == row_kind::plain) return {tile, lane};
  return {2 * tile + (kind == row_kind::up ? 1 : 0), lane};
}

// One thread: 32 columns of a row. Traffic: a row read once and written once.
__global__ void pack_rows(weight_format format, const std::byte* rows, std::int64_t row_bytes,
                          std::int64_t count, std::int64_t first_row, row_kind kind,
                          std::int64_t columns, std::int64_t blocks, std::byte* packed) {
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t row = at / blocks;
  if (row >= count) return;
  const packed_place place = place_of(kind, first_row + row);
  put_block(format, rows == nullptr ? nullptr : rows + row * row_bytes, columns, at % blocks,
            packed + place.tile * tile_bytes(format, columns), place.lane);
}

// One thread: eight columns. Grid: columns, rows.
__global__ void take_rows(weight_format format, const std::byte* packed, const std::int32_t* ids,
                          packed_place alone, float scale, std::int64_t columns, float* out,
                          std::int64_t stride, std::int64_t count) {
  const std::int64_t column = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * 8;
  if (column >= columns) return;
  for (std::int64_t t = blockIdx.y; t < count; t += gridDim.y) {
    const packed_place place = ids == nullptr ? alone : place_of(row_kind::plain, ids[t]);
    float values[8];
    load_eight(format, packed + place.tile * tile_bytes(format, columns), place.lane, column,
               columns, values);
    float* const to = out + t * stride + column;
    for (int i = 0; i < 8; ++i) {
      if (column + i < columns) to[i] = scale * values[i];
    }
  }
}

// One block row: one id, its rows of dx one after the other. Grid: columns, ids.
__global__ void add_rows_by_id(const float* dx, std::int64_t stride, const std::int32_t* order,
                               const std::int32_t* starts, const std::int32_t* ids, float scale,
                               std::int64_t columns, std::int64_t id_count, std::byte* table) {
  const std::int64_t column = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  const std::int64_t bytes = tile_bytes(weight_format::f32, columns);
  for (std::int64_t i = blockIdx.y; i < id_count; i += gridDim.y) {
    const std::int32_t id = ids[i];
    float* const to = reinterpret_cast<float*>(table + id / tile_outputs * bytes) +
                      column * tile_outputs + id % tile_outputs;
    float sum = *to;
    for (std::int32_t r = starts[i]; r < starts[i + 1]; ++r) {
      sum = __fadd_rn(sum, __fmul_rn(scale, dx[order[r] * stride + column]));
    }
    *to = sum;
  }
}

// One thread: 32 columns of a row, from float32 panels into float32, f16 or bf16. Lanes of a panel
// side by side, so that a warp reads whole lines of both panels it has.
__global__ void repack_rows(const float* from, std::int64_t from_stride, weight_format format,
                            std::int64_t rows, std::int64_t columns, std::int64_t blocks,
                            std::byte* packed) {
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t lane = at % tile_outputs;
  const std::int64_t block = at / tile_outputs % blocks;
  const std::int64_t tile = at / tile_outputs / blocks;
  if (tile * tile_outputs + lane >= rows) return;
  const float* const panel = from + tile * from_stride + lane;
  std::byte* const to = packed + tile * tile_bytes(format, columns);
  const auto value = [&](std::int64_t k) { return k < columns ? panel[k * tile_outputs] : 0.0F; };
  if (format == weight_format::f32) {
    for (std::int64_t k = block * 32; k < block * 32 + 32 && k < columns; ++k)
      reinterpret_cast<float*>(to)[k * tile_outputs + lane] = value(k);
    return;
  }
  auto* const words = reinterpret_cast<std::uint32_t*>(to + block * 1024 + lane * 64);
  for (int i = 0; i < 16; ++i) {
    const float low = value(block * 32 + 2 * i);
    const float high = value(block * 32 + 2 * i + 1);
    std::uint32_t word = 0;
    if (format == weight_format::f16) {
      const __half2 pair = __floats2half2_rn(low, high);
      memcpy(&word, &pair, sizeof word);
    } else {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
      memcpy(&word, &pair, sizeof word);
    }
    words[i] = word;
  }
}

unsigned grid_of(std::int64_t threads) {
  return static_cast<unsigned>((threads + block_threads - 1) / block_threads);
}
unsigned grid_y(std::int64_t count) {
  return static_cast<unsigned>(std::min<std::int64_t>(count, 32'768));
}

// The host's half and the device's of packing rows, piece by piece: while one piece is on its way
// the next is laid out.
void send_rows(cpu::thread_team& team, upload_ring& ring, cudaStream_t stream,
               const packed_matrix& target, std::int64_t first_row, row_kind kind,
               const row_source& source) {
  const std::int64_t bytes = cpu::encoded_row_bytes(target.format, target.columns);
  const std::int64_t most = std::max<std::int64_t>(1, piece_bytes / bytes);
  const std::int64_t blocks =
      (tile_groups(target.format, target.columns) * group_columns(target.format) + 31) / 32;
  for (std::int64_t first = 0; first < source.rows; first += most) {
    const std::int64_t count = std::min(most, source.rows - first);
    const upload_ring::room room = ring.take(static_cast<std::size_t>(count * bytes));
    team.run([&](int thread) {
      cpu::row_encoder encoder(target.format, target.columns);
      const std::int64_t end = count * (thread + 1) / team.size();
      for (std::int64_t i = count * thread / team.size(); i < end; ++i)
        std::memcpy(room.host + i * bytes, encoder.encode(source, first + i),
                    static_cast<std::size_t>(bytes));
    });
    ring.send(room);
    pack_rows<<<grid_of(count * blocks), block_threads, 0, stream>>>(
        target.format, room.device, bytes, count, first_row + first, kind, target.columns, blocks,
        target.data);
    launched("pack", count, target.columns);
  }
}

// Zeros for rows [first_row, end_row), which nobody has.
void send_zeros(cudaStream_t stream, const packed_matrix& target, std::int64_t first_row,
                std::int64_t end_row, row_kind kind) {
  if (first_row >= end_row) return;
  const std::int64_t blocks =
      (tile_groups(target.format, target.columns) * group_columns(target.format) + 31) / 32;
  pack_rows<<<grid_of((end_row - first_row) * blocks), block_threads, 0, stream>>>(
      target.format, nullptr, 0, end_row - first_row, first_row, kind, target.columns, blocks,
      target.data);
  launched("pack", end_row - first_row, target.columns);
}

// The kernel writes the row straight into pinned memory.
void fetch_row(cudaStream_t stream, pinned_room& room, const packed_matrix& source,
               packed_place place, float* out) {
  const std::size_t bytes = static_cast<std::size_t>(source.columns) * sizeof(float);
  auto* const there = reinterpret_cast<float*>(room.grown(bytes));
  take_rows<<<grid_of((source.columns + 7) / 8), block_threads, 0, stream>>>(
      source.format, source.data, nullptr, place, 1.0F, source.columns, there, 0, 1);
  launched("unpack_row", 1, source.columns);
  check(cudaStreamSynchronize(stream), "unpack_row", 1, source.columns);
  std::memcpy(out, there, bytes);
}

}  // namespace

std::size_t cuda_device::packed_bytes(weight_format format, std::int64_t rows,
                                      std::int64_t columns) const {
  return static_cast<std::size_t>(tiles_of(rows) * tile_bytes(format, columns));
}

bool cuda_device::can_pack(weight_format format, std::int64_t columns) const {
  return columns > 0 && (!has_blocks(format) || columns % 32 == 0);
}

void cuda_device::pack(const packed_matrix& target, std::int64_t first_row,
                       const row_source& source) {
  require(checks::pack(target, first_row, source));
  send_rows(team_, ring_, stream_, target, first_row, row_kind::plain, source);
  // The last rows bring the zeros behind them.
  if (first_row + source.rows == target.rows)
    send_zeros(stream_, target, target.rows, tiles_of(target.rows) * tile_outputs, row_kind::plain);
}

void cuda_device::pack_gated(const packed_matrix& target, const row_source& gate,
                             const row_source& up) {
  require(checks::pack_gated(target, gate, up));
  const std::int64_t padded = tiles_of(target.rows) / 2 * tile_outputs;
  for (const row_kind kind : {row_kind::gate, row_kind::up}) {
    send_rows(team_, ring_, stream_, target, 0, kind, kind == row_kind::gate ? gate : up);
    send_zeros(stream_, target, gate.rows, padded, kind);
  }
}

void cuda_device::repack(const packed_matrix& f32, std::int64_t first_row, std::int64_t rows,
                         const packed_matrix& target) {
  require(checks::repack(f32, first_row, rows, target));
  if (rows == 0) return;
  const std::int64_t stride = f32.columns * tile_outputs;
  const auto* const from =
      reinterpret_cast<const float*>(f32.data) + first_row / tile_outputs * stride;
  if (!has_blocks(target.format) && target.format != weight_format::fp8) {
    const std::int64_t blocks = (target.columns + 31) / 32;
    const std::int64_t tiles = (rows + tile_outputs - 1) / tile_outputs;
    repack_rows<<<grid_of(tiles * blocks * tile_outputs), block_threads, 0, stream_>>>(
        from, stride, target.format, rows, target.columns, blocks,
        target.data + first_row / tile_outputs * tile_bytes(target.format, target.columns));
    launched("repack", rows, target.columns);
    return;
  }
  // Blocks and fp8 are rounded as a file's are, by the host.
  std::vector<float> panels(
      static_cast<std::size_t>((rows + tile_outputs - 1) / tile_outputs * stride));
  read(std::as_bytes(std::span(from, panels.size())), reinterpret_cast<std::byte*>(panels.data()));
  std::vector<float> plain(static_cast<std::size_t>(rows * f32.columns));
  for_each(rows, [&](std::int64_t r) {
    const float* const panel = panels.data() + r / tile_outputs * stride + r % tile_outputs;
    for (std::int64_t k = 0; k < f32.columns; ++k)
      plain[static_cast<std::size_t>(r * f32.columns + k)] = panel[k * tile_outputs];
  });
  pack(target, first_row,
       {source_format::f32, reinterpret_cast<const std::byte*>(plain.data()), rows, {}});
}

void cuda_device::unpack_row(const packed_matrix& source, std::int64_t row, float* out) const {
  require(checks::unpack_row(source, row));
  fetch_row(stream_, fetched_row_, source, place_of(row_kind::plain, row), out);
}

void cuda_device::unpack_gated_row(const packed_matrix& source, bool up, std::int64_t row,
                                   float* out) const {
  require(checks::unpack_gated_row(source, row));
  fetch_row(stream_, fetched_row_, source, place_of(up ? row_kind::up : row_kind::gate, row), out);
}

packed_matrix cuda_device::rows_of(const packed_matrix& whole, std::int64_t first_row,
                                   std::int64_t rows) const {
  require(checks::rows_of(whole, first_row, rows));
  return {whole.format, rows, whole.columns,
          whole.data + first_row / tile_outputs * tile_bytes(whole.format, whole.columns)};
}

packed_matrix cuda_device::gated_as_linear(const packed_matrix& w_FD) const {
  require(checks::gated_as_linear(w_FD));
  return {w_FD.format, tiles_of(w_FD.rows) * tile_outputs, w_FD.columns, w_FD.data};
}

void cuda_device::embed(const packed_matrix& table_VD, std::span<const std::int32_t> ids_T,
                        float scale, rows_out x_TD) {
  require(checks::embed(table_VD, ids_T, x_TD));
  if (x_TD.rows == 0) return;
  const std::int32_t* const there = upload(ids_T);
  if (refilling()) return;
  constexpr int threads = 128;
  const dim3 grid(static_cast<unsigned>((x_TD.columns + 8 * threads - 1) / (8 * threads)),
                  grid_y(x_TD.rows));
  take_rows<<<grid, threads, 0, stream_>>>(table_VD.format, table_VD.data, there, {}, scale,
                                           x_TD.columns, x_TD.data, x_TD.stride, x_TD.rows);
  launched("embed", x_TD.rows, x_TD.columns);
}

void cuda_device::embed_backward(rows_in dx_TD, std::span<const std::int32_t> ids_T, float scale,
                                 const packed_matrix& dtable_VD) {
  require(checks::embed_backward(dx_TD, ids_T, dtable_VD));
  if (dx_TD.rows == 0) return;
  // Rows of one id together, in their order: each id's sum is one chain, ids side by side.
  std::vector<std::int32_t> order(ids_T.size());
  std::iota(order.begin(), order.end(), 0);
  const auto id_of = [&](std::int32_t row) { return ids_T[static_cast<std::size_t>(row)]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return id_of(a) < id_of(b); });
  std::vector<std::int32_t> starts;
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::int32_t id = id_of(order[i]);
    if (!ids.empty() && ids.back() == id) continue;
    ids.push_back(id);
    starts.push_back(static_cast<std::int32_t>(i));
  }
  starts.push_back(static_cast<std::int32_t>(order.size()));
  const auto uploaded = [&](const std::vector<std::int32_t>& values) {
    return ring_.upload(std::span<const std::int32_t>(values));
  };
  const dim3 grid(grid_of(dx_TD.columns), grid_y(std::ssize(ids)));
  add_rows_by_id<<<grid, block_threads, 0, stream_>>>(
      dx_TD.data, dx_TD.stride, uploaded(order), uploaded(starts), uploaded(ids), scale,
      dx_TD.columns, std::ssize(ids), dtable_VD.data);
  launched("embed_backward", dx_TD.rows, dx_TD.columns);
}

}  // namespace tandem::kernels::cuda
