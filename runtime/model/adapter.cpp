// Where an adapter's modules lie, and how their numbers get there and back. Shape legend as in
// kernels/backend.hpp; X inputs and Y outputs of a product, R the ranks of its modules together.
#include "runtime/model/adapter.hpp"

#include "kernels/cpu/cpu_backend.hpp"
#include "runtime/model/load_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string_view>
#include <utility>

namespace tandem::model {

namespace {

using kernels::packed_matrix;
using kernels::weight_format;

constexpr int product_count = 4;
constexpr int gated_product = 2;
constexpr int most_rank = 4096;

struct product_size {
  std::int64_t inputs = 0;
  std::int64_t outputs = 0;
};

// Which of a product's outputs a rank has, in the order of its rows.
std::vector<output_range> outputs_of(const model_config& c, const rank_part& own, int product) {
  const auto heads = [&](std::int64_t before, output_range range) {
    return output_range{(before + range.first) * c.head_size, range.count * c.head_size};
  };
  if (product == 0)
    return {heads(0, own.query_heads), heads(c.query_heads, own.key_heads),
            heads(std::int64_t{c.query_heads} + c.key_heads, own.key_heads)};
  if (product == gated_product)
    return {own.hidden, {c.hidden_size + own.hidden.first, own.hidden.count}};
  return {own.model};
}

// Those of them that stand in these rows of the whole product.
std::vector<output_range> outputs_within(const std::vector<output_range>& outputs,
                                         output_range rows) {
  std::vector<output_range> within;
  for (const auto& range : outputs) {
    const auto first = std::max(range.first, rows.first);
    const auto end = std::min(range.first + range.count, rows.first + rows.count);
    if (first < end) within.push_back({first, end - first});
  }
  return within;
}

std::int64_t count_of(const std::vector<output_range>& ranges) {
  std::int64_t count = 0;
  for (const auto& range : ranges) count += range.count;
  return count;
}

rank_part own_part(const model_config& config, tensor_rank place) {
  const auto split = tensor_split::make(config, place);
  ensure(split.has_value(), "an adapter's part of a model that can be split");
  return split->own();
}

product_size size_of(const model_config& c, const rank_part& own, int product) {
  const std::int64_t NH = std::int64_t{c.query_heads} * c.head_size;
  const std::array<std::int64_t, product_count> inputs{c.model_size, NH, c.model_size,
                                                       c.hidden_size};
  return {inputs[static_cast<std::size_t>(product)], count_of(outputs_of(c, own, product))};
}

// A module that this family's layers have: "q_proj" of "self_attn.q_proj".
struct known_module {
  std::string name;  // within the layer
  int product = 0;
  std::int64_t first_row = 0;
  std::int64_t rows = 0;

  std::string_view target() const {
    return std::string_view(name).substr(name.find_last_of('.') + 1);
  }
};

std::vector<known_module> modules_of(const model_config& c) {
  const auto names = hugging_face_names(c);
  const std::int64_t NH = std::int64_t{c.query_heads} * c.head_size;
  const std::int64_t KH = std::int64_t{c.key_heads} * c.head_size;
  const auto F = c.hidden_size;
  std::vector<known_module> modules;
  const auto add = [&](std::string_view name, int product, std::int64_t first, std::int64_t rows) {
    modules.push_back({std::string(name), product, first, rows});
  };
  if (names.fused_qkv.empty()) {
    add(names.query, 0, 0, NH);
    add(names.key, 0, NH, KH);
    add(names.value, 0, NH + KH, KH);
  } else {
    add(names.fused_qkv, 0, 0, NH + 2 * KH);
  }
  add(names.output, 1, 0, c.model_size);
  // Experts have no adapters: a layer that is a mixture has these in attention only.
  if (std::all_of(c.layers.begin(), c.layers.end(), [](const auto& l) { return l.moe; }))
    return modules;
  if (names.fused_gate_up.empty()) {
    add(names.gate, gated_product, 0, F);
    add(names.up, gated_product, F, F);
  } else {
    add(names.fused_gate_up, gated_product, 0, 2 * F);
  }
  add(names.down, 3, 0, c.model_size);
  return modules;
}

adapter_product& product_of(layer_adapter& layer, int product) {
  const std::array<adapter_product*, product_count> all{&layer.qkv, &layer.output, &layer.gate_up,
                                                        &layer.down};
  return *all[static_cast<std::size_t>(product)];
}
const adapter_product& product_of(const layer_adapter& layer, int product) {
  const std::array<const adapter_product*, product_count> all{&layer.qkv, &layer.output,
                                                              &layer.gate_up, &layer.down};
  return *all[static_cast<std::size_t>(product)];
}

// Calls take(layer index, product, inputs, outputs, R) for each product with modules, in the order
// of memory.
template <class Take>
void for_products(const model_config& config, const adapter_layout& layout, const Take& take) {
  const auto own = own_part(config, layout.place);
  std::size_t next = 0;
  for (std::size_t l = 0; l < config.layers.size(); ++l) {
    for (int product = 0; product < product_count; ++product) {
      std::int64_t R = 0;
      for (; next < layout.modules.size(); ++next) {
        const auto& module = layout.modules[next];
        if (static_cast<std::size_t>(module.layer) != l || module.product != product) break;
        R += module.rank;
      }
      if (R > 0) take(l, product, size_of(config, own, product), R);
    }
  }
  ensure(next == layout.modules.size(), "an adapter layout of another model");
}

std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

void unpack_rows(const kernels::backend& device, const packed_matrix& from, bool gated,
                 std::int64_t row, float* out) {
  const auto half = from.rows / 2;
  if (gated)
    device.unpack_gated_row(from, row >= half, row % half, out);
  else
    device.unpack_row(from, row, out);
}

kernels::row_source as_source(const float* rows, std::int64_t count) {
  return {kernels::source_format::f32, reinterpret_cast<const std::byte*>(rows), count, {}};
}

std::size_t bytes_of(const kernels::backend& device, const model_config& config,
                     const adapter_layout& layout) {
  std::size_t bytes = 0;
  for_products(config, layout, [&](std::size_t, int, product_size size, std::int64_t R) {
    bytes += aligned(device.packed_bytes(weight_format::f32, R, size.inputs)) +
             aligned(device.packed_bytes(weight_format::f32, size.outputs, R));
  });
  return bytes;
}

}  // namespace

result<adapter_layout> adapter_layout::make(const kernels::backend& device,
                                            const model_config& config, int rank, double alpha,
                                            const std::vector<std::string>& targets) {
  if (rank < 1 || rank > most_rank)
    return error{errc::bad_request,
                 fmt::format("rank is {}, it must lie between 1 and {}", rank, most_rank), "rank"};
  if (!std::isfinite(alpha) || alpha <= 0.0)
    return error{errc::bad_request, fmt::format("alpha is {}, it must be above 0", alpha), "alpha"};
  adapter_layout layout;
  layout.rank = rank;
  layout.scale = static_cast<float>(alpha / rank);
  const std::set<std::string_view> wanted(targets.begin(), targets.end());
  const auto known = modules_of(config);
  const auto own = own_part(config, layout.place);
  const std::string prefix(hugging_face_names(config).layer);
  for (std::size_t l = 0; l < config.layers.size(); ++l) {
    std::array<std::int64_t, product_count> ranks{};
    for (const auto& module : known) {
      if (!wanted.contains(module.target())) continue;
      if (config.layers[l].moe && module.product >= gated_product) continue;
      auto& first_rank = ranks[static_cast<std::size_t>(module.product)];
      layout.modules.push_back({.name = fmt::format(fmt::runtime(prefix), l) + module.name,
                                .layer = static_cast<int>(l),
                                .product = module.product,
                                .first_row = module.first_row,
                                .rows = module.rows,
                                .first_rank = first_rank,
                                .rank = rank,
                                .columns = size_of(config, own, module.product).inputs});
      first_rank += rank;
    }
  }
  if (layout.modules.empty()) {
    std::vector<std::string_view> has;
    for (const auto& module : known) has.push_back(module.target());
    return error{errc::bad_request,
                 fmt::format("none of the targets [{}] is a linear layer of a {} model; it has {}",
                             fmt::join(targets, ", "), config.family, fmt::join(has, ", ")),
                 "targets"};
  }
  layout.bytes = bytes_of(device, config, layout);
  return layout;
}

adapter_layout adapter_layout::part_of(const kernels::backend& device, const model_config& config,
                                       tensor_rank at) const {
  ensure(place == tensor_rank{}, "the part of a part");
  const auto own = own_part(config, at);
  adapter_layout part = *this;
  part.place = at;
  for (auto& module : part.modules) {
    const auto outputs = outputs_of(config, own, module.product);
    module.rows = count_of(outputs_within(outputs, {module.first_row, module.rows}));
    module.first_row = count_of(outputs_within(outputs, {0, module.first_row}));
  }
  part.bytes = bytes_of(device, config, part);
  return part;
}

result<std::shared_ptr<adapter>> adapter_part(kernels::backend& device, memory::ledger& book,
                                              const model_config& config,
                                              const adapter_layout& whole,
                                              std::span<std::byte> whole_bytes, tensor_rank place) {
  auto made = adapter::reserve(device, book, config, whole.part_of(device, config, place));
  if (!made) return made;
  // In float32 every backend has one layout (packed_matrix): this one reads any's.
  const auto host = kernels::cpu::make_backend({.cores = {}});
  const auto layers = place_adapter(*host, config, whole, whole_bytes.data());
  const auto own = own_part(config, place);
  auto module = whole.modules.begin();
  fill_adapter(device, (*made)->layers, (*made)->layout, [&](const adapter_module&) {
    const auto numbers = read_module(*host, layers, *module);
    module_numbers part{numbers.a, {}};
    for (const auto& rows : outputs_within(outputs_of(config, own, module->product),
                                           {module->first_row, module->rows})) {
      const auto begin = numbers.b.begin() + (rows.first - module->first_row) * module->rank;
      part.b.insert(part.b.end(), begin, begin + rows.count * module->rank);
    }
    ++module;
    return part;
  });
  return made;
}

std::vector<layer_adapter> place_adapter(const kernels::backend& device, const model_config& config,
                                         const adapter_layout& layout, std::byte* memory) {
  std::vector<layer_adapter> layers(config.layers.size());
  std::size_t at = 0;
  const auto place = [&](std::int64_t rows, std::int64_t columns) {
    const packed_matrix matrix{weight_format::f32, rows, columns,
                               memory == nullptr ? nullptr : memory + at};
    at += aligned(device.packed_bytes(weight_format::f32, rows, columns));
    return matrix;
  };
  for_products(config, layout, [&](std::size_t l, int which, product_size size, std::int64_t R) {
    auto& product = product_of(layers[l], which);
    product.a_RX = place(R, size.inputs);
    product.b_YR = place(size.outputs, R);
  });
  ensure(at == layout.bytes, "an adapter layout made for another model or backend");
  return layers;
}

result<std::shared_ptr<adapter>> adapter::reserve(kernels::backend& device, memory::ledger& book,
                                                  const model_config& config,
                                                  const adapter_layout& layout) {
  auto memory = memory::arena::reserve(
      book, memory::owner::adapters, layout.bytes,
      fmt::format("an adapter of rank {} with {} modules", layout.rank, layout.modules.size()));
  if (!memory) return memory.error();
  auto made = std::make_shared<adapter>();
  made->layout = layout;
  made->memory = std::move(*memory);
  made->layers = place_adapter(device, config, layout, made->memory.take(layout.bytes).data());
  return made;
}

module_numbers read_module(const kernels::backend& device, const std::vector<layer_adapter>& layers,
                           const adapter_module& module) {
  const auto& product =
      product_of(layers.at(static_cast<std::size_t>(module.layer)), module.product);
  ensure(product.a_RX.data != nullptr, "a module of another adapter");
  module_numbers numbers;
  numbers.a.resize(static_cast<std::size_t>(module.rank * module.columns));
  numbers.b.resize(static_cast<std::size_t>(module.rows * module.rank));
  for (std::int64_t r = 0; r < module.rank; ++r)
    device.unpack_row(product.a_RX, module.first_rank + r, numbers.a.data() + r * module.columns);
  std::vector<float> row(static_cast<std::size_t>(product.b_YR.columns));
  for (std::int64_t y = 0; y < module.rows; ++y) {
    unpack_rows(device, product.b_YR, module.product == gated_product, module.first_row + y,
                row.data());
    std::copy_n(row.begin() + module.first_rank, module.rank, numbers.b.begin() + y * module.rank);
  }
  return numbers;
}

void fill_adapter(kernels::backend& device, const std::vector<layer_adapter>& layers,
                  const adapter_layout& layout,
                  const std::function<module_numbers(const adapter_module&)>& numbers) {
  std::vector<float> a;
  std::vector<float> b;
  for (std::size_t next = 0; next < layout.modules.size();) {
    const auto& first = layout.modules[next];
    const auto& product =
        product_of(layers.at(static_cast<std::size_t>(first.layer)), first.product);
    const auto R = product.a_RX.rows;
    a.assign(static_cast<std::size_t>(R * product.a_RX.columns), 0.0F);
    b.assign(static_cast<std::size_t>(R * product.b_YR.rows), 0.0F);
    for (; next < layout.modules.size(); ++next) {
      const auto& module = layout.modules[next];
      if (module.layer != first.layer || module.product != first.product) break;
      const auto given = numbers(module);
      ensure(std::ssize(given.a) == module.rank * module.columns &&
                 std::ssize(given.b) == module.rows * module.rank,
             "a module's A and B of its own sizes");
      std::copy(given.a.begin(), given.a.end(), a.begin() + module.first_rank * module.columns);
      for (std::int64_t y = 0; y < module.rows; ++y)
        std::copy_n(given.b.begin() + y * module.rank, module.rank,
                    b.begin() + (module.first_row + y) * R + module.first_rank);
    }
    device.pack(product.a_RX, 0, as_source(a.data(), R));
    const auto rows = product.b_YR.rows;
    if (rows == 0) continue;  // a rank without outputs of this product
    if (first.product == gated_product)
      device.pack_gated(product.b_YR, as_source(b.data(), rows / 2),
                        as_source(b.data() + rows / 2 * R, rows / 2));
    else
      device.pack(product.b_YR, 0, as_source(b.data(), rows));
  }
}

}  // namespace tandem::model
