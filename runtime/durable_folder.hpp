// A folder of files that is there whole or not at all: written under another name beside its own
// (NAME.part), every file and the folder synced, then renamed, and the parent synced. Whoever is
// killed on the way leaves a NAME.part, which the next writer removes.
#pragma once

#include "runtime/result.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

namespace tandem {

// One file on its way. Errors are errc::io, with the path and the bytes free there.
class durable_file {
 public:
  static result<durable_file> create(const std::filesystem::path& path);
  durable_file(durable_file&& other) noexcept;
  durable_file& operator=(durable_file&&) = delete;
  ~durable_file();

  // Starts the disk on what was written, so that `finish` has little left to wait for.
  result<void> write(std::span<const std::byte> bytes);
  result<void> write(std::string_view text);
  std::uint64_t bytes() const { return bytes_; }
  // On the disk once this has returned, and closed.
  result<void> finish();

 private:
  explicit durable_file(std::filesystem::path path, int descriptor)
      : path_(std::move(path)), descriptor_(descriptor) {}
  error failed(const char* doing) const;

  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t bytes_ = 0;
};

class durable_folder {
 public:
  // Begins PATH.part, having removed what stood there. Refuses, before anything is written, what
  // needs more than is free. Missing parents are made.
  static result<durable_folder> begin(const std::filesystem::path& path,
                                      std::uint64_t bytes_needed);
  durable_folder(durable_folder&& other) noexcept;
  durable_folder& operator=(durable_folder&&) = delete;
  ~durable_folder();  // not committed: removes what was written

  const std::filesystem::path& part() const { return part_; }
  result<durable_file> file(std::string_view name) const;
  // A small file, whole.
  result<void> write(std::string_view name, std::string_view contents) const;
  // Takes the place of a folder of that name, in one step.
  result<void> commit();

 private:
  durable_folder(std::filesystem::path path, std::filesystem::path part)
      : path_(std::move(path)), part_(std::move(part)) {}

  std::filesystem::path path_;
  std::filesystem::path part_;  // empty once committed
};

inline constexpr std::string_view part_suffix = ".part";

// Removes a folder so that no half of it ever stands under its name.
result<void> remove_durably(const std::filesystem::path& folder);
result<void> sync_folder(const std::filesystem::path& folder);
// What this process may still write there; of the nearest folder that exists.
std::uint64_t free_bytes(const std::filesystem::path& path);

}  // namespace tandem
