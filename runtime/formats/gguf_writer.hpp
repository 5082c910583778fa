// Writes GGUF files (version 3, little-endian): what gguf.hpp reads. Metadata and descriptions
// first, then every tensor's bytes in the same order.
#pragma once

#include "runtime/formats/gguf.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::formats {

class gguf_writer {
 public:
  explicit gguf_writer(std::uint32_t version = 3) : version_(version) {}

  void integer(std::string_view key, std::uint32_t value);
  void integer64(std::string_view key, std::uint64_t value);
  void number(std::string_view key, float value);
  void boolean(std::string_view key, bool value);
  void string(std::string_view key, std::string_view value);
  void strings(std::string_view key, const std::vector<std::string>& values);
  void numbers(std::string_view key, const std::vector<float>& values);
  void integers(std::string_view key, const std::vector<std::int32_t>& values);
  // A value of any type as its bytes lie in a file: of another file, or one that must be refused.
  void raw(std::string_view key, std::uint32_t type, std::span<const std::byte> value);
  // An entry of another file.
  void copy(const gguf_entry& entry);
  // Of all that follows; 32 where it is not given.
  void align(std::uint32_t alignment);

  // `shape` rows first, as the readers see it. The tensor's bytes follow the header in this order,
  // each followed by `padding` zeros.
  void describe(std::string_view name, const std::vector<std::int64_t>& shape,
                std::uint32_t ggml_type, std::uint64_t bytes);
  std::vector<std::byte> header() const;
  std::size_t padding(std::uint64_t bytes) const {
    return static_cast<std::size_t>((alignment_ - bytes % alignment_) % alignment_);
  }

 private:
  template <class T>
  static void put(std::vector<std::byte>& to, T value) {
    const auto at = to.size();
    to.resize(at + sizeof value);
    std::memcpy(to.data() + at, &value, sizeof value);
  }
  static void put_string(std::vector<std::byte>& to, std::string_view text);
  void entry(std::string_view key, std::uint32_t type);
  void array(std::string_view key, std::uint32_t element_type, std::size_t count);

  std::uint32_t version_;
  std::uint64_t alignment_ = 32;
  std::uint64_t tensor_count_ = 0;
  std::uint64_t entry_count_ = 0;
  std::uint64_t next_offset_ = 0;
  std::vector<std::byte> entries_;
  std::vector<std::byte> descriptions_;
};

// ggml's number of a format.
std::uint32_t ggml_type_of(kernels::source_format format);

}  // namespace tandem::formats
