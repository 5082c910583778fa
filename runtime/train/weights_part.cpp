#include "runtime/train/weights_part.hpp"

#include "kernels/cpu/cpu_backend.hpp"
#include "runtime/memory/arena.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::train {
namespace {

kernels::row_source as_source(const std::vector<float>& rows, std::int64_t count) {
  return {kernels::source_format::f32, reinterpret_cast<const std::byte*>(rows.data()), count, {}};
}

}  // namespace

result<std::unique_ptr<weights_part>> weights_part::reserve(
    kernels::backend& device, const std::shared_ptr<memory::ledger>& book,
    const model::model_config& config, std::string_view format, model::tensor_rank place,
    std::uint64_t version) {
  const auto known = model::load_format_from(format);
  if (!known)
    return error{errc::bad_request, fmt::format("serve_format '{}' is not known", format),
                 "serve_format"};
  auto imagined = imagine_load(device, config, *known, place);
  if (!imagined) return imagined.error();
  auto made = std::unique_ptr<weights_part>(new weights_part(device, *std::move(imagined)));
  // In float32 every backend has one layout (packed_matrix): this one reads any's.
  made->host_ = kernels::cpu::make_backend({.cores = {}});
  auto layout = parameter_layout::make(*made->host_, config);
  if (!layout) return layout.error();
  for (auto& tensor : layout->tensors) {
    auto name = tensor.name;
    made->tensors_.emplace(std::move(name), std::move(tensor));
  }
  auto& plan = made->imagined_->plan;
  auto arena = memory::arena::reserve(*book, memory::owner::weights, plan.bytes,
                                      fmt::format("version {} in {}", version, format));
  if (!arena) return arena.error();
  auto& model = *plan.model;
  model.version = version;
  model.book = book;
  model.memory = std::move(*arena);
  for (const auto& load : plan.vectors)
    *load.target = reinterpret_cast<const float*>(
        model.memory.take(static_cast<std::size_t>(load.size) * sizeof(float)).data());
  for (const auto& load : plan.matrices) {
    auto& target = *load.target;
    if (target.rows == 0) continue;  // fewer units of outputs than ranks
    target.data =
        model.memory.take(device.packed_bytes(target.format, target.rows, target.columns)).data();
  }
  if (config.tied_head) {
    const auto own = model::tensor_split::make(config, place)->own().vocabulary;
    model.head_VD = device.rows_of(model.embedding_VD, own.first, own.count);
  }
  return made;
}

std::size_t weights_part::piece_count() const { return imagined_->plan.matrices.size() + 1; }

void weights_part::write(std::size_t piece, std::span<const float> parameters) {
  if (piece == 0) return write_vectors(parameters);
  write_matrix(imagined_->plan.matrices[piece - 1], parameters);
}

std::shared_ptr<const model::weights> weights_part::take() {
  device_.finish();
  return std::move(imagined_->plan.model);
}

// A vector's values are its rows.
std::vector<float> weights_part::rows_of(const model::row_part& part,
                                         std::span<const float> parameters) const {
  const auto found = tensors_.find(part.tensor->name);
  ensure(found != tensors_.end(), "a tensor of the model that was trained");
  const auto& tensor = found->second;
  std::vector<float> rows;
  if (tensor.packed_rows == 0) {
    rows.resize(static_cast<std::size_t>(tensor.columns));
    read_row(*host_, tensor, parameters, 0, rows.data());
    const auto first = rows.begin() + part.first_row;
    return {first, first + part.rows};
  }
  rows.resize(static_cast<std::size_t>(part.rows * tensor.columns));
  for (std::int64_t row = 0; row < part.rows; ++row)
    read_row(*host_, tensor, parameters, part.first_row + row, rows.data() + row * tensor.columns);
  return rows;
}

void weights_part::write_vectors(std::span<const float> parameters) {
  for (const auto& load : imagined_->plan.vectors) {
    std::vector<float> values;
    for (const auto& part : load.parts) {
      const auto more = rows_of(part, parameters);
      values.insert(values.end(), more.begin(), more.end());
    }
    // Ours alone until it is taken.
    device_.write(std::as_bytes(std::span(values)),
                  reinterpret_cast<std::byte*>(const_cast<float*>(*load.target)));
  }
}

void weights_part::write_matrix(const model::matrix_load& load, std::span<const float> parameters) {
  if (load.target->rows == 0) return;
  if (load.gated) {
    const auto gate = rows_of(load.parts[0], parameters);
    const auto up = rows_of(load.parts[1], parameters);
    device_.pack_gated(*load.target, as_source(gate, load.parts[0].rows),
                       as_source(up, load.parts[1].rows));
    return;
  }
  std::int64_t first = 0;
  for (const auto& part : load.parts) {
    device_.pack(*load.target, first, as_source(rows_of(part, parameters), part.rows));
    first += part.rows;
  }
}

}  // namespace tandem::train
