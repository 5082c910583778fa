// A lock between processes of one machine: given back when it is closed, or its process ends.
#pragma once

#include "runtime/result.hpp"

#include <filesystem>
#include <optional>
#include <string_view>

namespace tandem::shelf {

class lock_file {
 public:
  enum class kind : std::uint8_t { shared, alone };
  // Made where it is not there. Nothing: somebody holds it; nobody waits here.
  static result<std::optional<lock_file>> take(const std::filesystem::path& path, kind how);
  lock_file(lock_file&& other) noexcept;
  lock_file& operator=(lock_file&& other) noexcept;
  ~lock_file();

  void touch() const;  // its time is now
  // A short text in it, for whoever holds it or looks at its name; what was there is gone.
  result<void> write(std::string_view mark) const;
  // Not until this is done does a power cut leave it.
  result<void> write_to_disk(std::string_view mark) const;
  void give_back();

 private:
  explicit lock_file(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
};

}  // namespace tandem::shelf
