// A read-only memory-mapped file.
#pragma once

#include "runtime/result.hpp"

#include <cstddef>
#include <filesystem>
#include <span>

namespace tandem::formats {

class mapped_file {
 public:
  mapped_file() = default;
  static result<mapped_file> open(const std::filesystem::path& path);
  mapped_file(mapped_file&& other) noexcept;
  mapped_file& operator=(mapped_file&& other) noexcept;
  ~mapped_file();

  std::span<const std::byte> bytes() const { return bytes_; }
  // Gives the pages of `range` back to the kernel: they were copied out and are not needed again.
  void drop(std::span<const std::byte> range) const;

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace tandem::formats
