// A regular file, open for reading, and where it lies; its name may be gone meanwhile.
#pragma once

#include "runtime/result.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace tandem::shelf {

// Says whether two names on one machine mean the very same bytes.
struct file_place {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::int64_t changed_ns = 0;  // its ctime, which nobody can set back
  bool operator==(const file_place&) const = default;
};

class open_file {
 public:
  // A link at the end of the path is refused, as is whatever is no regular file.
  static result<open_file> open(const std::filesystem::path& path);
  open_file(open_file&& other) noexcept;
  open_file& operator=(open_file&& other) noexcept;
  ~open_file();

  std::uint64_t bytes() const { return bytes_; }
  const file_place& place() const { return place_; }
  // All of `into`, or the reason why not.
  result<void> read(std::uint64_t offset, std::span<std::byte> into) const;

 private:
  open_file(std::filesystem::path path, int descriptor)
      : path_(std::move(path)), descriptor_(descriptor) {}

  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t bytes_ = 0;
  file_place place_;
};

// The same of a name, links followed; nothing that is no regular file.
struct file_status {
  std::uint64_t bytes = 0;
  file_place place;
};
result<file_status> status_of(const std::filesystem::path& path);

}  // namespace tandem::shelf
