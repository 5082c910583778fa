// safetensors files: 8 bytes of header length, a JSON header, tensor bytes. One file, or the shards
// that model.safetensors.index.json names. Every length and offset is checked before use.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/formats/mapped_file.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace tandem::formats {

struct safetensor {
  std::string name;
  std::vector<std::int64_t> shape;  // rows first; empty: one number
  kernels::source_format format;    // f32, f16, bf16 or e4m3: other types are refused by name
  std::span<const std::byte> bytes;
};

class safetensors_file {
 public:
  static result<safetensors_file> open(const std::filesystem::path& path);
  // The same over bytes in memory (tests, fuzzing); `bytes` must outlive the file.
  static result<safetensors_file> parse(std::span<const std::byte> bytes);

  const std::vector<safetensor>& tensors() const { return tensors_; }
  const mapped_file& map() const { return map_; }
  std::uint64_t file_bytes() const { return bytes_.size(); }

 private:
  mapped_file map_;
  std::span<const std::byte> bytes_;
  std::vector<safetensor> tensors_;
};

// All shards of a Hugging Face folder: those of its index, or model.safetensors alone. Each tensor
// lies in exactly one shard, and in the one the index says.
result<std::vector<safetensors_file>> open_safetensors_folder(const std::filesystem::path& folder);

}  // namespace tandem::formats
