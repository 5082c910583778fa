// The store's folder: its lock, which one process holds, and the bytes of files, put in place so
// that a name that is there is whole.
#pragma once

#include "runtime/result.hpp"

#include <filesystem>
#include <functional>
#include <string_view>
#include <utility>

namespace tandem::store {

// Held from making to the end; a process that dies lets go of it.
class folder_lock {
 public:
  static result<folder_lock> take(const std::filesystem::path& folder);
  folder_lock(folder_lock&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  folder_lock& operator=(folder_lock&&) = delete;
  ~folder_lock();

 private:
  explicit folder_lock(int file) : file_(file) {}
  int file_;
};

// Syncs `from` and renames it to `to`, then syncs the folder that holds it.
result<void> put_in_place(const std::filesystem::path& from, const std::filesystem::path& to);

// Removes what uploads and removals that were cut off left in `folder`: all names that `known`
// does not want.
void remove_strays(const std::filesystem::path& folder,
                   const std::function<bool(std::string_view name)>& known);

}  // namespace tandem::store
