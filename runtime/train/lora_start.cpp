#include "runtime/train/lora_start.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

namespace tandem::train {

namespace {

// splitmix64's finalizer (Steele et al. 2014) over a counter.
std::uint64_t mixed(std::uint64_t z) {
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31U);
}

std::uint64_t key_of(std::uint64_t seed, std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return mixed(hash + mixed(seed + 0x9e3779b97f4a7c15U));
}

// In [0, 1): 53 bits.
double uniform(std::uint64_t key, std::uint64_t index) {
  return static_cast<double>(mixed(key + (index + 1) * 0x9e3779b97f4a7c15U) >> 11U) * 0x1p-53;
}

std::string matrix_name(const std::vector<std::string_view>& modules, std::string_view matrix) {
  std::string name(modules.front());
  for (std::size_t i = 1; i < modules.size(); ++i) {
    name += '+';
    name += modules[i].substr(modules[i].find_last_of('.') + 1);
  }
  return name.append(".").append(matrix).append(".weight");
}

}  // namespace

void start_adapter(kernels::backend& device, model::adapter& adapter, std::uint64_t seed) {
  model::fill_adapter(device, adapter.layers, adapter.layout,
                      [&](const model::adapter_module& module) {
                        model::module_numbers numbers;
                        numbers.a.resize(static_cast<std::size_t>(module.rank * module.columns));
                        numbers.b.resize(static_cast<std::size_t>(module.rows * module.rank));
                        const auto key = key_of(seed, module.name);
                        const double bound = 1.0 / std::sqrt(static_cast<double>(module.columns));
                        for (std::size_t i = 0; i < numbers.a.size(); ++i)
                          numbers.a[i] = static_cast<float>((2.0 * uniform(key, i) - 1.0) * bound);
                        return numbers;
                      });
}

std::vector<parameter> layout_of_adapter(const kernels::backend& device,
                                         const model::model_config& config,
                                         const model::adapter_layout& layout) {
  const auto layers = model::place_adapter(device, config, layout, nullptr);
  std::vector<parameter> list;
  std::size_t at = 0;
  const auto add = [&](const kernels::packed_matrix& matrix, std::string name) {
    const auto bytes = device.packed_bytes(matrix.format, matrix.rows, matrix.columns);
    const auto floats = (bytes + 63) / 64 * 64 / sizeof(float);
    list.push_back({std::move(name), at, floats, true});
    at += floats;
  };
  const auto& modules = layout.modules;
  for (std::size_t next = 0; next < modules.size();) {
    const auto& first = modules[next];
    std::vector<std::string_view> names;
    for (; next < modules.size() && modules[next].layer == first.layer &&
           modules[next].product == first.product;
         ++next)
      names.push_back(modules[next].name);
    const auto& layer = layers[static_cast<std::size_t>(first.layer)];
    const std::array<const model::adapter_product*, 4> products{&layer.qkv, &layer.output,
                                                                &layer.gate_up, &layer.down};
    const auto& product = *products[static_cast<std::size_t>(first.product)];
    add(product.a_RX, matrix_name(names, "lora_A"));
    add(product.b_YR, matrix_name(names, "lora_B"));
  }
  ensure(at * sizeof(float) == layout.bytes, "parameters that tile the adapter");
  return list;
}

std::vector<zero_block> blocks_of(std::span<const zero_run> runs) {
  std::vector<zero_block> blocks;
  for (const auto& run : runs) {
    if (!blocks.empty()) {
      auto& last = blocks.back();
      const auto apart = run.first - (last.first + (last.runs - 1) * last.stride);
      if (run.count == last.count && (last.runs == 1 || apart == last.stride)) {
        last.stride = apart;
        ++last.runs;
        continue;
      }
    }
    blocks.push_back({run.first, run.count, run.count, 1});
  }
  return blocks;
}

std::vector<zero_block> structural_zeros(kernels::backend& device,
                                         const model::model_config& config,
                                         const model::adapter_layout& layout,
                                         std::span<std::byte> scratch) {
  ensure(scratch.size() == layout.bytes, "scratch of the adapter's size");
  model::fill_adapter(device, model::place_adapter(device, config, layout, scratch.data()), layout,
                      [](const model::adapter_module& module) {
                        model::module_numbers ones;
                        ones.a.assign(static_cast<std::size_t>(module.rank * module.columns), 1.0F);
                        ones.b.assign(static_cast<std::size_t>(module.rows * module.rank), 1.0F);
                        return ones;
                      });
  std::vector<float> pattern(scratch.size() / sizeof(float));
  device.read(scratch, reinterpret_cast<std::byte*>(pattern.data()));
  std::vector<zero_run> runs;
  for (auto at = pattern.begin(); at != pattern.end();) {
    const auto first = std::find(at, pattern.end(), 0.0F);
    at = std::find_if(first, pattern.end(), [](float x) { return x != 0.0F; });
    if (first != at)
      runs.push_back({static_cast<std::size_t>(first - pattern.begin()),
                      static_cast<std::size_t>(at - first)});
  }
  device.fill_zero(scratch);
  return blocks_of(runs);
}

}  // namespace tandem::train
