// Models of any config with random weights, as Hugging Face folders; and random training rows.
#pragma once

#include "kernels/cpu/cpu_backend.hpp"
#include "runtime/model/model_config.hpp"
#include "runtime/train/batch.hpp"
#include "runtime/train/named_tensors.hpp"

#include <catch2/catch.hpp>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace tandem::test {

// Weights around 0 (norms around 1) from `seed`, in float32.
inline void write_random_model(const std::filesystem::path& folder, const std::string& config_json,
                               unsigned seed) {
  const auto config = model::config_from_json(config_json);
  if (!config) FAIL(config.error().detail);
  const auto device = kernels::cpu::make_backend({.cores = {}});
  const auto layout = train::parameter_layout::make(*device, *config);
  if (!layout) FAIL(layout.error().detail);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::string header;
  std::vector<float> data;
  for (const auto& tensor : layout->tensors) {
    const auto start = data.size() * sizeof(float);
    const bool norm = tensor.packed_rows == 0 && tensor.name.ends_with("norm.weight");
    for (std::int64_t i = 0; i < tensor.rows * tensor.columns; ++i)
      data.push_back((norm ? 1.0F - tensor.added : 0.0F) + 0.15F * normal(random));
    std::string shape;
    for (const auto size : tensor.shape) shape += (shape.empty() ? "" : ",") + std::to_string(size);
    header += (header.empty() ? "{" : ",") + ("\"" + tensor.name) +
              R"(":{"dtype":"F32","shape":[)" + shape + R"(],"data_offsets":[)" +
              std::to_string(start) + "," + std::to_string(data.size() * sizeof(float)) + "]}";
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << config_json;
  std::ofstream out(folder / "model.safetensors", std::ios::binary);
  const std::uint64_t length = header.size();
  out.write(reinterpret_cast<const char*>(&length), sizeof length);
  out.write(header.data(), static_cast<std::streamsize>(header.size()));
  out.write(reinterpret_cast<const char*>(data.data()),
            static_cast<std::streamsize>(data.size() * sizeof(float)));
  REQUIRE(out.good());
}

// `examples` examples of 2 to `longest` tokens; about two thirds of their targets count.
inline train::slot_rows random_rows(std::mt19937& random, int examples, int longest,
                                    int vocabulary) {
  const auto below = [&](int n) {
    return static_cast<std::int32_t>(random() % static_cast<unsigned>(n));
  };
  train::slot_rows rows;
  for (int e = 0; e < examples; ++e) {
    const auto length = 2 + below(longest - 1);
    rows.example_rows.push_back(length);
    const auto first = rows.ids.size();
    for (std::int32_t t = 0; t < length; ++t) rows.ids.push_back(below(vocabulary));
    for (std::int32_t t = 0; t < length; ++t)
      rows.targets.push_back(
          t + 1 < length && below(3) > 0 ? rows.ids[first + static_cast<std::size_t>(t) + 1] : -1);
  }
  return rows;
}

inline std::vector<train::round_rows> random_rounds(std::mt19937& random, int rounds, int slots,
                                                    int vocabulary) {
  std::vector<train::round_rows> made(static_cast<std::size_t>(rounds));
  for (auto& round : made)
    for (int s = 0; s < slots; ++s)
      round.slots.push_back(random_rows(random, 1 + static_cast<int>(random() % 3), 9, vocabulary));
  return made;
}

}  // namespace tandem::test
