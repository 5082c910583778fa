#include "runtime/train/named_tensors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string_view>
#include <utility>

namespace tandem::train {

namespace {

constexpr std::size_t line = 64 / sizeof(float);

std::size_t whole_lines(std::size_t floats) { return (floats + line - 1) / line * line; }

// "model.layers.0.self_attn.q_proj+k_proj+v_proj.weight"
std::string joined_name(const std::vector<model::row_part>& parts) {
  std::string joined = parts.front().tensor->name;
  const auto end = joined.find_last_of('.');
  const std::string suffix = end == std::string::npos ? "" : joined.substr(end);
  joined.resize(joined.size() - suffix.size());
  for (std::size_t i = 1; i < parts.size(); ++i) {
    if (parts[i].tensor == parts[i - 1].tensor) continue;
    std::string_view name = parts[i].tensor->name;
    name.remove_suffix(suffix.size());
    joined += '+';
    joined += name.substr(name.find_last_of('.') + 1);
  }
  return joined + suffix;
}

void add_vector(parameter_layout& layout, const model::vector_load& load) {
  std::size_t at = layout.floats;
  for (const auto& part : load.parts) {
    layout.tensors.push_back({.name = part.tensor->name,
                              .shape = part.tensor->shape,
                              .rows = 1,
                              .columns = part.rows,
                              .added = load.added,
                              .factor = load.factor,
                              .first_float = at});
    at += static_cast<std::size_t>(part.rows);
  }
  const auto floats = whole_lines(at - layout.floats);
  layout.parameters.push_back({joined_name(load.parts), layout.floats, floats, false});
  layout.floats += floats;
}

void add_matrix(parameter_layout& layout, const model::matrix_load& load,
                const kernels::backend& device) {
  const auto& target = *load.target;
  std::int64_t row = 0;
  const model::stored_tensor* before = nullptr;
  for (const auto& part : load.parts) {
    if (part.tensor == before) {  // of one fused file tensor
      layout.tensors.back().rows += part.rows;
    } else {
      layout.tensors.push_back({.name = part.tensor->name,
                                .shape = part.tensor->shape,
                                .rows = part.rows,
                                .columns = target.columns,
                                .added = 0.0F,
                                .first_float = layout.floats,
                                .packed_rows = target.rows,
                                .first_row = row,
                                .gated = load.gated});
    }
    before = part.tensor;
    row += part.rows;
  }
  const auto floats =
      whole_lines(device.packed_bytes(kernels::weight_format::f32, target.rows, target.columns) /
                  sizeof(float));
  layout.parameters.push_back({joined_name(load.parts), layout.floats, floats, true});
  layout.floats += floats;
}

}  // namespace

result<parameter_layout> parameter_layout::make(const kernels::backend& device,
                                                const model::model_config& config,
                                                model::tensor_rank place) {
  const auto imagined =
      imagine_load(device, config, model::load_format::f32, place, model::table_rows::own);
  if (!imagined) return imagined.error();
  const auto& plan = (*imagined)->plan;
  parameter_layout layout;
  for (const auto& load : plan.vectors) add_vector(layout, load);
  for (const auto& load : plan.matrices) add_matrix(layout, load, device);
  ensure(layout.floats * sizeof(float) == plan.bytes, "a layout of all that a load packs");
  return layout;
}

void read_row(const kernels::backend& device, const named_tensor& tensor,
              std::span<const float> arena, std::int64_t row, float* out) {
  ensure(row >= 0 && row < tensor.rows, "a row of the tensor");
  if (tensor.packed_rows == 0) {
    const auto from = arena.subspan(tensor.first_float, static_cast<std::size_t>(tensor.columns));
    std::copy(from.begin(), from.end(), out);
    return;
  }
  // Reading does not write: packed_matrix has one kind of pointer.
  auto* const floats = const_cast<float*>(arena.data() + tensor.first_float);
  const kernels::packed_matrix whole{kernels::weight_format::f32, tensor.packed_rows,
                                     tensor.columns, reinterpret_cast<std::byte*>(floats)};
  const auto at = tensor.first_row + row;
  if (!tensor.gated) return device.unpack_row(whole, at, out);
  const auto half = tensor.packed_rows / 2;
  device.unpack_gated_row(whole, at >= half, at % half, out);
}

void as_in_file(const named_tensor& tensor, float* row) {
  if (tensor.added == 0.0F && tensor.factor == 1.0F) return;
  for (std::int64_t c = 0; c < tensor.columns; ++c) row[c] = row[c] / tensor.factor - tensor.added;
}

result<std::unique_ptr<imagined_load>> imagine_load(const kernels::backend& device,
                                                    const model::model_config& config,
                                                    model::load_format format,
                                                    model::tensor_rank place,
                                                    model::table_rows embedding) {
  auto made = std::make_unique<imagined_load>();
  made->files.names = model::hugging_face_names(config);
  made->files.ignorable = [](std::string_view) { return false; };
  // A dummy's plan says which tensors there are; with them the wanted one is made.
  auto dummy = model::plan_load(config, made->files, model::load_format::dummy, device);
  if (!dummy) return dummy.error();
  for (const auto& tensor : dummy->invented) made->files.tensors.emplace(tensor->name, *tensor);
  auto plan = model::plan_load(config, made->files, format, device, place, embedding);
  if (!plan) return plan.error();
  made->plan = std::move(*plan);
  return made;
}

}  // namespace tandem::train
