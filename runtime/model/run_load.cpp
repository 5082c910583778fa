// Carries out a load plan: one arena, every vector copied, every matrix packed, and the file's
// pages given back as soon as they were read, so that resident memory does not double.
#include "runtime/memory/arena.hpp"
#include "runtime/model/load_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace tandem::model {

namespace {

using kernels::source_format;

// Rows invented at a time, so that a dummy of any size needs little memory beside it.
constexpr std::int64_t invented_rows = 4096;
// The usual spread of freshly made weights.
constexpr double invented_deviation = 0.02;

float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16U;
  const std::uint32_t exponent = (half >> 10U) & 0x1fU;
  const std::uint32_t fraction = half & 0x3ffU;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
    return sign != 0 ? -magnitude : magnitude;
  }
  const std::uint32_t wide = exponent == 31 ? 255U : exponent + 112U;
  return std::bit_cast<float>(sign | (wide << 23U) | (fraction << 13U));
}

float value_at(const stored_tensor& tensor, std::int64_t index) {
  const auto at = static_cast<std::size_t>(index);
  if (tensor.format == source_format::f32) {
    float value = 0.0F;
    std::memcpy(&value, tensor.bytes.data() + at * sizeof value, sizeof value);
    return value;
  }
  std::uint16_t half = 0;
  std::memcpy(&half, tensor.bytes.data() + at * sizeof half, sizeof half);
  return tensor.format == source_format::bf16 ? std::bit_cast<float>(std::uint32_t{half} << 16U)
                                              : half_to_float(half);
}

void fill_vector(const vector_load& load, std::span<float> target) {
  std::size_t at = 0;
  for (const auto& part : load.parts) {
    for (std::int64_t i = 0; i < part.rows; ++i) {
      const auto row = part.order.empty() ? i : part.order[static_cast<std::size_t>(i)];
      const float value = part.tensor->bytes.empty()
                              ? load.invented
                              : value_at(*part.tensor, part.first_row + row) + load.added;
      target[at++] = value * load.factor;
    }
  }
}

// A number in [0, 1) for each index of each tensor (splitmix64, Steele et al. 2014).
double invented_uniform(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return static_cast<double>((z ^ (z >> 31U)) >> 11U) * 0x1p-53;
}

std::uint64_t seed_of(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a
  for (const char c : name)
    hash = (hash ^ static_cast<std::uint64_t>(static_cast<unsigned char>(c))) * 0x100000001b3U;
  return hash;
}

}  // namespace

struct load_run::state {
  state(load_plan p, kernels::backend& d) : plan(std::move(p)), device(d) {}

  void take();
  void fill_vectors();
  void pack(const matrix_load& load);
  void pack_rows(const matrix_load& load, const row_part& part, std::int64_t first_row);
  kernels::row_source rows_of(const matrix_load& load, const row_part& part) const;
  kernels::row_source invent(const matrix_load& load, const row_part& part, std::int64_t first,
                             std::int64_t rows, std::vector<float>& memory);
  void drop(const matrix_load& load, const row_part& part) const;

  load_plan plan;
  kernels::backend& device;
  std::vector<float> invented;
  std::vector<float> invented_up;
};

load_run::load_run(std::unique_ptr<state> s) : state_(std::move(s)) {}
load_run::~load_run() = default;
std::size_t load_run::piece_count() const { return state_->plan.matrices.size() + 1; }
const std::shared_ptr<weights>& load_run::model() const { return state_->plan.model; }

result<std::unique_ptr<load_run>> load_run::reserve(load_plan plan, kernels::backend& device,
                                                    memory::ledger& book, std::string_view what) {
  auto arena = memory::arena::reserve(book, memory::owner::weights, plan.bytes, what);
  if (!arena) return arena.error();
  plan.model->memory = std::move(*arena);
  auto s = std::make_unique<state>(std::move(plan), device);
  s->take();
  return std::unique_ptr<load_run>(new load_run(std::move(s)));
}

void load_run::state::take() {
  weights& model = *plan.model;
  for (const auto& load : plan.vectors)
    *load.target = reinterpret_cast<const float*>(
        model.memory.take(static_cast<std::size_t>(load.size) * sizeof(float)).data());
  for (const auto& load : plan.matrices) {
    auto& target = *load.target;
    if (target.rows == 0) continue;  // fewer units of outputs than ranks
    target.data =
        model.memory.take(device.packed_bytes(target.format, target.rows, target.columns)).data();
  }
  if (!model.config.tied_head) return;
  const auto split = tensor_split::make(model.config, model.place);
  ensure(split.has_value(), "a plan of a model that can be split");
  const auto own = split->own().vocabulary;
  model.head_VD = plan.table == table_rows::own
                      ? model.embedding_VD
                      : device.rows_of(model.embedding_VD, own.first, own.count);
}

void load_run::run(std::size_t piece) {
  if (piece == 0) return state_->fill_vectors();
  const auto& load = state_->plan.matrices[piece - 1];
  if (load.target->rows > 0) state_->pack(load);
}

void load_run::state::fill_vectors() {
  for (const auto& load : plan.vectors) {
    invented.resize(static_cast<std::size_t>(load.size));
    fill_vector(load, invented);
    // Ours alone until the load is done.
    device.write(std::as_bytes(std::span(invented)),
                 reinterpret_cast<std::byte*>(const_cast<float*>(*load.target)));
  }
}

void load_run::state::pack(const matrix_load& load) {
  if (load.gated) {
    const auto& gate = load.parts[0];
    const auto& up = load.parts[1];
    if (gate.tensor->bytes.empty()) {
      device.pack_gated(*load.target, invent(load, gate, 0, gate.rows, invented),
                        invent(load, up, 0, up.rows, invented_up));
    } else {
      device.pack_gated(*load.target, rows_of(load, gate), rows_of(load, up));
      drop(load, gate);
      drop(load, up);
    }
    return;
  }
  std::int64_t row = 0;
  for (const auto& part : load.parts) {
    pack_rows(load, part, row);
    row += part.rows;
  }
}

void load_run::state::pack_rows(const matrix_load& load, const row_part& part,
                                std::int64_t first_row) {
  if (!part.tensor->bytes.empty()) {
    device.pack(*load.target, first_row, rows_of(load, part));
    drop(load, part);
    return;
  }
  for (std::int64_t done = 0; done < part.rows; done += invented_rows) {
    const auto rows = std::min(invented_rows, part.rows - done);
    device.pack(*load.target, first_row + done, invent(load, part, done, rows, invented));
  }
}

kernels::row_source load_run::state::rows_of(const matrix_load& load, const row_part& part) const {
  const auto row_bytes = kernels::source_row_bytes(part.tensor->format, load.target->columns);
  auto grid = part.tensor->grid;
  grid.first_row += part.first_row;
  return {part.tensor->format,
          part.tensor->bytes.data() + static_cast<std::size_t>(part.first_row) * row_bytes,
          part.rows, part.order, grid};
}

kernels::row_source load_run::state::invent(const matrix_load& load, const row_part& part,
                                            std::int64_t first, std::int64_t rows,
                                            std::vector<float>& memory) {
  const auto columns = load.target->columns;
  memory.resize(static_cast<std::size_t>(rows * columns));
  const auto seed = seed_of(part.tensor->name);
  const double width = invented_deviation * 2.0 * 1.7320508075688772;  // of a uniform, by sqrt(12)
  device.for_each(rows, [&](std::int64_t r) {
    const auto start = static_cast<std::uint64_t>((part.first_row + first + r) * columns);
    float* const out = memory.data() + r * columns;
    for (std::int64_t c = 0; c < columns; ++c)
      out[c] = static_cast<float>(
          (invented_uniform(seed, start + static_cast<std::uint64_t>(c)) - 0.5) * width);
  });
  return {source_format::f32, reinterpret_cast<const std::byte*>(memory.data()), rows, {}};
}

void load_run::state::drop(const matrix_load& load, const row_part& part) const {
  if (part.tensor->map == nullptr) return;
  const auto row_bytes = kernels::source_row_bytes(part.tensor->format, load.target->columns);
  part.tensor->map->drop(
      part.tensor->bytes.subspan(static_cast<std::size_t>(part.first_row) * row_bytes,
                                 static_cast<std::size_t>(part.rows) * row_bytes));
}

result<std::shared_ptr<const weights>> run_load(load_plan plan, kernels::backend& device,
                                                memory::ledger& book, std::string_view name,
                                                const std::function<void(double)>& progress) {
  auto load = load_run::reserve(std::move(plan), device, book,
                                fmt::format("loading the weights of {}", name));
  if (!load) return load.error();
  const auto pieces = (*load)->piece_count();
  for (std::size_t piece = 0; piece < pieces; ++piece) {
    (*load)->run(piece);
    if (progress) progress(static_cast<double>(piece + 1) / static_cast<double>(pieces));
  }
  return std::shared_ptr<const weights>((*load)->model());
}

}  // namespace tandem::model
