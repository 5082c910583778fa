// Writes safetensors files: what safetensors.hpp reads. Shapes first, then every tensor's bytes in
// the same order, as a stream.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/durable_folder.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::formats {

struct tensor_description {
  std::string name;
  std::vector<std::int64_t> shape;  // rows first
  kernels::source_format format = kernels::source_format::f32;
  std::uint64_t bytes() const;
};

class safetensors_writer {
 public:
  // f32, f16 and bf16 tensors, each name once.
  static result<safetensors_writer> create(const durable_folder& folder, std::string_view name,
                                           std::span<const tensor_description> tensors);
  result<void> write(std::span<const std::byte> bytes);
  result<void> finish();  // every byte that was announced must be there

 private:
  safetensors_writer(durable_file file, std::uint64_t bytes_left)
      : file_(std::move(file)), bytes_left_(bytes_left) {}

  durable_file file_;
  std::uint64_t bytes_left_ = 0;
};

// Which tensors go into which file: in order, none of them above `most_bytes` but where one tensor
// alone is. One file: model.safetensors; several: model-00001-of-00003.safetensors.
struct shard {
  std::string name;
  std::size_t first = 0;
  std::size_t count = 0;
};
std::vector<shard> shards_of(std::span<const tensor_description> tensors, std::uint64_t most_bytes);
// model.safetensors.index.json
std::string index_json(std::span<const tensor_description> tensors,
                       const std::vector<shard>& shards);

}  // namespace tandem::formats
