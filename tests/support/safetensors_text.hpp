// Tensors as text, to be changed and written back as a safetensors file.
#pragma once

#include "runtime/formats/safetensors.hpp"

#include <fmt/format.h>
#include <catch2/catch.hpp>

#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace tandem::test {

struct tensor_text {
  std::string dtype = "F32";
  std::vector<std::int64_t> shape;
  std::string bytes;
};
using tensor_texts = std::map<std::string, tensor_text>;

inline tensor_texts tensor_texts_of(const std::filesystem::path& path) {
  using kernels::source_format;
  const auto file = formats::safetensors_file::open(path);
  REQUIRE(file);
  tensor_texts tensors;
  for (const auto& stored : file->tensors())
    tensors[stored.name] = {
        stored.format == source_format::f32    ? "F32"
        : stored.format == source_format::f16  ? "F16"
        : stored.format == source_format::bf16 ? "BF16"
                                               : "F8_E4M3",
        stored.shape,
        std::string(reinterpret_cast<const char*>(stored.bytes.data()), stored.bytes.size())};
  return tensors;
}

inline std::string safetensors(const tensor_texts& tensors) {
  std::string header = "{";
  std::string data;
  for (const auto& [name, t] : tensors) {
    header += fmt::format(R"({}"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                          header.size() > 1 ? "," : "", name, t.dtype, fmt::join(t.shape, ","),
                          data.size(), data.size() + t.bytes.size());
    data += t.bytes;
  }
  header += "}";
  std::string file(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(file.data(), &length, sizeof length);
  return file + header + data;
}

}  // namespace tandem::test
