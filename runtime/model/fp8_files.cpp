#include "runtime/model/fp8_files.hpp"

#include "kernels/cpu/source_formats.hpp"
#include "kernels/e4m3.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

namespace tandem::model {
namespace {

using kernels::source_format;

constexpr std::int64_t most_block = 1 << 20;
// Far above any; products of it with 448 and with what kernels fold into scales stay finite.
constexpr float most_scale = 0x1p100F;

void refuse(fields& config, std::string_view found) {
  config.refuse(errc::unsupported,
                fmt::format("the weights are quantized in a way that cannot be read here ({}); use "
                            "an FP8 repository (e4m3 weights with scales: quant_method fp8, or "
                            "compressed-tensors of 8-bit floats), the unquantized one or a GGUF "
                            "file",
                            found));
}

// A whole row, or whole runs of the columns that share a scale in memory.
void refuse_odd_blocks(fields& config, const fp8_scheme& scheme) {
  if (scheme.block_columns % kernels::fp8_block_columns != 0)
    refuse(config,
           fmt::format("blocks of {} by {}, not of a multiple of {} columns", scheme.block_rows,
                       scheme.block_columns, kernels::fp8_block_columns));
}

std::optional<fp8_scheme> read_block(fields& of, std::string_view key) {
  if (!of.has(key)) return fp8_scheme{};
  const auto sizes = of.integers(key, 1, most_block);
  if (of.failure()) return std::nullopt;
  if (sizes.size() != 2) {
    of.refuse(errc::bad_file, fmt::format("{} is {}, not two sizes", key, of.spelled(key)));
    return std::nullopt;
  }
  return fp8_scheme{sizes[0], sizes[1]};
}

std::optional<fp8_scheme> read_fine_grained(fields& quantization) {
  const auto type = quantization.find_string("fmt");
  if (type && *type != "e4m3") refuse(quantization, fmt::format("FP8 of the kind {}", *type));
  return read_block(quantization, "weight_block_size");
}

// The weights of one group of modules of compressed-tensors.
std::optional<fp8_scheme> read_group(fields& weights) {
  const auto strategy = weights.find_string("strategy").value_or("tensor");
  if (weights.integer("num_bits", 8, 1, 64) != 8 ||
      weights.find_string("type").value_or("int") != "float" ||
      !weights.boolean("symmetric", true)) {
    refuse(weights, fmt::format("compressed-tensors with weights of {} bits, type {}, symmetric {}",
                                weights.spelled("num_bits"), weights.spelled("type"),
                                weights.spelled("symmetric")));
    return std::nullopt;
  }
  if (strategy == "tensor" || strategy == "channel") return fp8_scheme{};
  if (strategy == "block" && weights.has("block_structure"))
    return read_block(weights, "block_structure");
  if (strategy == "group")
    return fp8_scheme{1, weights.required_integer("group_size", 1, most_block)};
  refuse(weights, fmt::format("compressed-tensors with the strategy {}", strategy));
  return std::nullopt;
}

bool is_float_format(const std::optional<std::string>& format) {
  return !format || *format == "float-quantized" || *format == "naive-quantized";
}

std::optional<fp8_scheme> read_compressed_tensors(fields& quantization) {
  if (!is_float_format(quantization.find_string("format")))
    refuse(quantization,
           fmt::format("compressed-tensors, format {}", quantization.spelled("format")));
  if (auto sparsity = quantization.find_object("sparsity_config"))
    if (const auto format = sparsity->find_string("format"); format && *format != "dense")
      refuse(quantization, fmt::format("compressed-tensors, sparse format {}", *format));
  if (const auto transforms = quantization.find_object("transform_config");
      transforms && !transforms->names().empty())
    refuse(quantization, "compressed-tensors with transforms");
  auto groups = quantization.find_object("config_groups");
  std::optional<fp8_scheme> all;
  for (const auto& name : groups ? groups->names() : std::vector<std::string>{}) {
    auto group = groups->find_object(name);
    auto weights = group ? group->find_object("weights") : std::nullopt;
    if (group && !is_float_format(group->find_string("format")))
      refuse(*group, fmt::format("compressed-tensors, format {}", group->spelled("format")));
    const auto scheme = weights ? read_group(*weights) : std::nullopt;
    if (group && weights) group->adopt(*weights);
    if (group) groups->adopt(*group);
    if (!scheme) continue;
    if (all && *all != *scheme) refuse(quantization, "compressed-tensors with blocks of two sizes");
    all = scheme;
  }
  if (groups) quantization.adopt(*groups);
  if (!all) refuse(quantization, "compressed-tensors without config_groups of weights");
  return all;
}

std::string spelled(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

error broken(std::string detail) { return {errc::bad_file, std::move(detail), {}}; }

// How the scales of that shape lie over a weight; nothing where they do not.
std::optional<kernels::scale_grid> grid_of(const std::vector<std::int64_t>& weight,
                                           const std::vector<std::int64_t>& scales,
                                           const fp8_scheme& scheme) {
  const std::int64_t rows = std::max<std::int64_t>(weight[0], 1);
  const std::int64_t columns = std::max<std::int64_t>(weight[1], 1);
  if (scheme.block_rows > 0) {
    const std::int64_t across = (columns + scheme.block_columns - 1) / scheme.block_columns;
    if (scales == std::vector{(rows + scheme.block_rows - 1) / scheme.block_rows, across})
      return kernels::scale_grid{nullptr, scheme.block_rows, scheme.block_columns, across, 0};
  }
  if (std::all_of(scales.begin(), scales.end(), [](std::int64_t size) { return size == 1; }))
    return kernels::scale_grid{nullptr, rows, columns, 0, 0};
  if (scales == std::vector{weight[0]} || scales == std::vector{weight[0], std::int64_t{1}})
    return kernels::scale_grid{nullptr, 1, columns, 1, 0};
  return std::nullopt;
}

result<void> attach(stored_tensor& weight, const stored_tensor& scales, const fp8_scheme& scheme) {
  const auto grid = grid_of(weight.shape, scales.shape, scheme);
  if (!grid)
    return broken(fmt::format(
        "tensor '{}' has the shape {}, which says no scales of '{}' {}: one, "
        "one a row{} would",
        scales.name, spelled(scales.shape), weight.name, spelled(weight.shape),
        scheme.block_rows > 0
            ? fmt::format(" or one for {} by {}", scheme.block_rows, scheme.block_columns)
            : ""));
  if (scales.format != source_format::f32 && scales.format != source_format::bf16 &&
      scales.format != source_format::f16)
    return broken(fmt::format("tensor '{}' is no F32, BF16 or F16", scales.name));
  std::int64_t count = 1;
  for (const auto size : scales.shape) count *= size;
  auto values = std::make_shared<std::vector<float>>(static_cast<std::size_t>(count));
  kernels::cpu::decode_row(scales.format, scales.bytes.data(), count, values->data());
  for (const float value : *values)
    if (!(value >= 0.0F && value <= most_scale))
      return broken(fmt::format("tensor '{}' holds {}, which is no scale", scales.name, value));
  weight.grid = *grid;
  weight.grid.data = values->data();
  weight.scales = std::move(values);
  return {};
}

}  // namespace

std::optional<fp8_scheme> read_fp8_scheme(fields& config) {
  auto quantization = config.find_object("quantization_config");
  if (!quantization) return std::nullopt;
  const auto method = quantization->find_string("quant_method").value_or("not named");
  std::optional<fp8_scheme> scheme;
  if (method == "fp8")
    scheme = read_fine_grained(*quantization);
  else if (method == "compressed-tensors")
    scheme = read_compressed_tensors(*quantization);
  else
    refuse(*quantization, "quant_method " + method);
  if (scheme) refuse_odd_blocks(*quantization, *scheme);
  config.adopt(*quantization);
  return scheme;
}

result<void> attach_fp8_scales(tensor_set& files, const std::optional<fp8_scheme>& scheme) {
  constexpr std::string_view end = ".weight";
  std::vector<std::string> scale_names;
  for (auto& [name, weight] : files.tensors) {
    if (weight.format != source_format::e4m3) continue;
    if (!scheme)
      return error{errc::unsupported,
                   fmt::format("tensor '{}' is stored as F8_E4M3, and config.json has no "
                               "quantization_config that says how it is scaled",
                               weight.name),
                   {}};
    if (!name.ends_with(end) || weight.shape.size() != 2)
      return error{errc::unsupported,
                   fmt::format("tensor '{}' {} is stored as F8_E4M3 and is no matrix of weights",
                               weight.name, spelled(weight.shape)),
                   {}};
    const stored_tensor* scales = nullptr;
    for (const auto* kind : {"_scale_inv", "_scale"}) {
      const auto found = files.tensors.find(name + kind);
      if (found == files.tensors.end()) continue;
      scales = &found->second;
      scale_names.push_back(found->first);
      break;
    }
    if (scales == nullptr)
      return broken(
          fmt::format("tensor '{0}' is stored as F8_E4M3 and has neither '{0}_scale_inv' "
                      "nor '{0}_scale' beside it: the checkpoint is incomplete",
                      weight.name));
    if (auto attached = attach(weight, *scales, *scheme); !attached) return attached.error();
  }
  for (const auto& name : scale_names) files.tensors.erase(name);
  return {};
}

bool is_unused_fp8_scale(std::string_view name) {
  constexpr std::array<std::string_view, 7> ends{
      ".input_scale", ".input_scale_ub", ".activation_scale", ".output_scale",
      ".k_scale",     ".v_scale",        ".kv_scale"};
  return std::any_of(ends.begin(), ends.end(),
                     [&](std::string_view end) { return name.ends_with(end); });
}

}  // namespace tandem::model
