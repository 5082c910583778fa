// Writes small GGUF files for tests: metadata, then tensors, as the specification lays them out.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::test {

class gguf_writer {
 public:
  explicit gguf_writer(std::uint32_t version = 3) : version_(version) {}

  void integer(std::string_view key, std::uint32_t value) {
    entry(key, 4);
    put(entries_, value);
  }
  void integer64(std::string_view key, std::uint64_t value) {
    entry(key, 10);
    put(entries_, value);
  }
  void number(std::string_view key, float value) {
    entry(key, 6);
    put(entries_, value);
  }
  void boolean(std::string_view key, bool value) {
    entry(key, 7);
    put(entries_, static_cast<std::uint8_t>(value));
  }
  void string(std::string_view key, std::string_view value) {
    entry(key, 8);
    put_string(entries_, value);
  }
  void strings(std::string_view key, const std::vector<std::string>& values) {
    array(key, 8, values.size());
    for (const auto& value : values) put_string(entries_, value);
  }
  void numbers(std::string_view key, const std::vector<float>& values) {
    array(key, 6, values.size());
    for (const float value : values) put(entries_, value);
  }
  void integers(std::string_view key, const std::vector<std::int32_t>& values) {
    array(key, 5, values.size());
    for (const auto value : values) put(entries_, value);
  }
  // A value of any type, its bytes given: for what must be refused.
  void raw(std::string_view key, std::uint32_t type, std::span<const std::byte> value) {
    entry(key, type);
    entries_.insert(entries_.end(), value.begin(), value.end());
  }

  // `shape` rows first, as the readers see it. Tensors begin at multiples of the alignment.
  void tensor(std::string_view name, std::vector<std::int64_t> shape, std::uint32_t ggml_type,
              std::span<const std::byte> bytes) {
    put_string(descriptions_, name);
    put(descriptions_, static_cast<std::uint32_t>(shape.size()));
    for (auto size = shape.rbegin(); size != shape.rend(); ++size) put(descriptions_, *size);
    put(descriptions_, ggml_type);
    pad(data_);
    put(descriptions_, static_cast<std::uint64_t>(data_.size()));
    data_.insert(data_.end(), bytes.begin(), bytes.end());
    ++tensor_count_;
  }
  void tensor(std::string_view name, std::vector<std::int64_t> shape,
              const std::vector<float>& values) {
    tensor(name, std::move(shape), 0, std::as_bytes(std::span(values)));
  }
  void align(std::uint32_t alignment) {
    integer("general.alignment", alignment);
    alignment_ = alignment;
  }

  std::vector<std::byte> bytes() const {
    std::vector<std::byte> file;
    for (const char c : std::string_view("GGUF")) file.push_back(static_cast<std::byte>(c));
    put(file, version_);
    put(file, tensor_count_);
    put(file, entry_count_);
    file.insert(file.end(), entries_.begin(), entries_.end());
    file.insert(file.end(), descriptions_.begin(), descriptions_.end());
    if (tensor_count_ > 0) pad(file);
    file.insert(file.end(), data_.begin(), data_.end());
    return file;
  }
  void write(const std::filesystem::path& path) const {
    const auto file = bytes();
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(file.data()),
              static_cast<std::streamsize>(file.size()));
  }

 private:
  template <class T>
  static void put(std::vector<std::byte>& to, T value) {
    const auto at = to.size();
    to.resize(at + sizeof value);
    std::memcpy(to.data() + at, &value, sizeof value);
  }
  static void put_string(std::vector<std::byte>& to, std::string_view text) {
    put(to, static_cast<std::uint64_t>(text.size()));
    for (const char c : text) to.push_back(static_cast<std::byte>(c));
  }
  void entry(std::string_view key, std::uint32_t type) {
    put_string(entries_, key);
    put(entries_, type);
    ++entry_count_;
  }
  void array(std::string_view key, std::uint32_t element_type, std::size_t count) {
    entry(key, 9);
    put(entries_, element_type);
    put(entries_, static_cast<std::uint64_t>(count));
  }
  void pad(std::vector<std::byte>& to) const {
    to.resize((to.size() + alignment_ - 1) / alignment_ * alignment_);
  }

  std::uint32_t version_;
  std::uint64_t alignment_ = 32;
  std::uint64_t tensor_count_ = 0;
  std::uint64_t entry_count_ = 0;
  std::vector<std::byte> entries_;
  std::vector<std::byte> descriptions_;
  std::vector<std::byte> data_;
};

}  // namespace tandem::test
