#include "runtime/durable_folder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <system_error>
#include <utility>

namespace tandem {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t write_bytes = std::size_t{8} << 20;

error io_error(std::string detail) { return {errc::io, std::move(detail), {}}; }

std::string reason(int code) {
  if (code == ENOSPC || code == EDQUOT) return "the disk is full";
  return std::strerror(code);
}

fs::path part_of(const fs::path& path) { return path.string() + std::string(part_suffix); }

result<void> remove_tree(const fs::path& folder) {
  std::error_code code;
  fs::remove_all(folder, code);
  if (code)
    return io_error(fmt::format("{} cannot be removed: {}", folder.string(), code.message()));
  return {};
}

// With a trailing slash or without, a folder's parent is the same.
fs::path without_slash(fs::path path) {
  if (!path.has_filename() && path.has_parent_path()) path = path.parent_path();
  return path;
}

fs::path parent_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// Puts `from` where `to` is or was, leaving no instant without one of the two under the name. What
// `to` was is under `from` afterwards, if there was one.
bool take_place(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return true;
  if (errno != ENOTEMPTY && errno != EEXIST) return false;
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) return true;
  if (errno != EINVAL && errno != ENOSYS) return false;
  // A file system that cannot exchange: the old one steps aside first.
  const fs::path aside = to.string() + ".old" + std::string(part_suffix);
  std::error_code ignored;
  fs::remove_all(aside, ignored);
  return ::rename(to.c_str(), aside.c_str()) == 0 && ::rename(from.c_str(), to.c_str()) == 0 &&
         ::rename(aside.c_str(), from.c_str()) == 0;
}

}  // namespace

result<durable_file> durable_file::create(const fs::path& path) {
  const int descriptor =
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
  durable_file file(path, descriptor);
  if (descriptor < 0) return file.failed("opening");
  return file;
}

durable_file::durable_file(durable_file&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      bytes_(other.bytes_) {}

durable_file::~durable_file() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

error durable_file::failed(const char* doing) const {
  const int cause = errno;
  return io_error(fmt::format("{} {}: {} ({} bytes of it written, {} free there)", doing,
                              path_.string(), reason(cause), bytes_, free_bytes(path_)));
}

result<void> durable_file::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto piece = std::min(bytes.size(), write_bytes);
    const ssize_t written = ::write(descriptor_, bytes.data(), piece);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failed("writing");
    // Advice only: where it does nothing, `finish` waits longer.
    ::sync_file_range(descriptor_, static_cast<off64_t>(bytes_), written, SYNC_FILE_RANGE_WRITE);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    bytes_ += static_cast<std::uint64_t>(written);
  }
  return {};
}

result<void> durable_file::write(std::string_view text) {
  return write(std::as_bytes(std::span(text)));
}

result<void> durable_file::finish() {
  if (::fsync(descriptor_) != 0) return failed("syncing");
  if (::close(std::exchange(descriptor_, -1)) != 0) return failed("closing");
  return {};
}

result<durable_folder> durable_folder::begin(const fs::path& path, std::uint64_t bytes_needed) {
  const fs::path target = without_slash(path);
  const fs::path part = part_of(target);
  const fs::path parent = parent_of(target);
  if (auto removed = remove_tree(part); !removed) return removed.error();
  std::error_code code;
  const bool made = fs::create_directories(parent, code);
  if (code) return io_error(fmt::format("{}: {}", parent.string(), code.message()));
  if (made)
    if (auto synced = sync_folder(parent_of(parent)); !synced) return synced.error();
  if (const auto left = free_bytes(parent); left < bytes_needed)
    return io_error(fmt::format("{} needs {} bytes and {} are free there: make room",
                                target.string(), bytes_needed, left));
  if (::mkdir(part.c_str(), 0755) != 0)
    return io_error(fmt::format("{}: {}", part.string(), reason(errno)));
  return durable_folder(target, part);
}

durable_folder::durable_folder(durable_folder&& other) noexcept
    : path_(std::move(other.path_)), part_(std::exchange(other.part_, fs::path())) {}

durable_folder::~durable_folder() {
  std::error_code ignored;  // what is left is removed by the next writer
  if (!part_.empty()) fs::remove_all(part_, ignored);
}

result<durable_file> durable_folder::file(std::string_view name) const {
  return durable_file::create(part_ / name);
}

result<void> durable_folder::write(std::string_view name, std::string_view contents) const {
  auto made = file(name);
  if (!made) return made.error();
  if (auto written = made->write(contents); !written) return written;
  return made->finish();
}

result<void> durable_folder::commit() {
  if (auto synced = sync_folder(part_); !synced) return synced;
  if (!take_place(part_, path_))
    return io_error(
        fmt::format("renaming {} to {}: {}", part_.string(), path_.string(), reason(errno)));
  const fs::path old = std::exchange(part_, fs::path());
  if (auto synced = sync_folder(parent_of(path_)); !synced) return synced;
  std::error_code ignored;  // the folder that stood there before, if one did
  fs::remove_all(old, ignored);
  return {};
}

result<void> remove_durably(const fs::path& folder) {
  const fs::path target = without_slash(folder);
  const fs::path part = part_of(target);
  if (auto removed = remove_tree(part); !removed) return removed;
  if (::rename(target.c_str(), part.c_str()) != 0)
    return io_error(fmt::format("{} cannot be removed: {}", target.string(), reason(errno)));
  return remove_tree(part);
}

result<void> sync_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return io_error(fmt::format("{}: {}", folder.string(), reason(errno)));
  const int failed = ::fsync(descriptor) == 0 ? 0 : errno;
  ::close(descriptor);
  // Some file systems cannot sync a folder and need not.
  if (failed != 0 && failed != EINVAL && failed != ENOTSUP)
    return io_error(fmt::format("syncing {}: {}", folder.string(), reason(failed)));
  return {};
}

std::uint64_t free_bytes(const fs::path& path) {
  struct statvfs space {};
  fs::path at = path;
  while (::statvfs(at.empty() ? "." : at.c_str(), &space) != 0) {
    if (errno == EINTR) continue;
    if (at.empty() || at == at.parent_path()) return std::numeric_limits<std::uint64_t>::max();
    at = at.parent_path();
  }
  return std::uint64_t{space.f_bavail} * space.f_frsize;
}

}  // namespace tandem
