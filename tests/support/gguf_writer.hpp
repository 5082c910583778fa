// Small GGUF files for tests, whole in memory.
#pragma once

#include "runtime/formats/gguf_writer.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string_view>
#include <vector>

namespace tandem::test {

class gguf_writer : public formats::gguf_writer {
 public:
  using formats::gguf_writer::gguf_writer;

  // `shape` rows first, as the readers see it.
  void tensor(std::string_view name, const std::vector<std::int64_t>& shape,
              std::uint32_t ggml_type, std::span<const std::byte> bytes) {
    data_.resize(data_.size() + padding(data_.size()));
    describe(name, shape, ggml_type, bytes.size());
    data_.insert(data_.end(), bytes.begin(), bytes.end());
  }
  void tensor(std::string_view name, const std::vector<std::int64_t>& shape,
              const std::vector<float>& values) {
    tensor(name, shape, 0, std::as_bytes(std::span(values)));
  }

  std::vector<std::byte> bytes() const {
    auto file = header();
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
  std::vector<std::byte> data_;
};

}  // namespace tandem::test
