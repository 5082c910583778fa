// GGUF files (version 2 and 3, little-endian), memory-mapped. Every offset, count and length is
// checked before use: a broken or hostile file is an error, never a crash.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/formats/mapped_file.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tandem::formats {

struct gguf_tensor {
  std::string name;
  std::vector<std::int64_t> shape;  // rows first, as everywhere here (GGUF writes columns first)
  kernels::source_format format;
  std::span<const std::byte> bytes;
};

// One piece of metadata as it lies in a file: for copying.
struct gguf_entry {
  std::string_view key;
  std::uint32_t type = 0;
  std::uint32_t element_type = 0;  // of arrays
  std::uint64_t count = 0;         // of arrays
  std::span<const std::byte> payload;
};

class gguf_file {
 public:
  static result<gguf_file> open(const std::filesystem::path& path);
  // The same over bytes in memory (tests, fuzzing); `bytes` must outlive the file.
  static result<gguf_file> parse(std::span<const std::byte> bytes);

  // Metadata by key; nothing when the key is missing or of another type. Integers of any width and
  // sign read as int64 (an unsigned one beyond its range is nothing), floats of either width as
  // double.
  std::optional<std::int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> string(std::string_view key) const;
  std::optional<std::vector<std::string_view>> strings(std::string_view key) const;
  std::optional<std::vector<double>> numbers(std::string_view key) const;
  std::optional<std::vector<std::int64_t>> integers(std::string_view key) const;
  bool has(std::string_view key) const;
  std::vector<gguf_entry> entries() const;  // sorted by key

  const std::vector<gguf_tensor>& tensors() const { return tensors_; }
  const gguf_tensor* tensor(std::string_view name) const;
  const mapped_file& map() const { return map_; }
  std::uint64_t file_bytes() const { return bytes_.size(); }

 private:
  friend class gguf_reader;
  struct entry {
    std::uint32_t type = 0;
    std::uint32_t element_type = 0;  // of arrays
    std::uint64_t count = 0;         // of arrays
    std::span<const std::byte> payload;
  };
  const entry* find(std::string_view key) const;

  mapped_file map_;
  std::span<const std::byte> bytes_;
  std::unordered_map<std::string, entry> entries_;
  std::vector<gguf_tensor> tensors_;
  std::unordered_map<std::string, std::size_t> tensor_index_;
};

}  // namespace tandem::formats
