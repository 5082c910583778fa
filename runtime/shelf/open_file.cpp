#include "runtime/shelf/open_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace tandem::shelf {
namespace {

error failed(const std::filesystem::path& path, int code) {
  return {code == ENOENT || code == ENOTDIR ? errc::not_found : errc::io,
          fmt::format("{}: {}", path.string(), std::strerror(code)), ""};
}

file_place place_in(const struct stat& status) {
  return {status.st_dev, status.st_ino,
          std::int64_t{status.st_ctim.tv_sec} * 1'000'000'000 + status.st_ctim.tv_nsec};
}

error no_file(const std::filesystem::path& path) {
  return {errc::bad_file, path.string() + " is no regular file", ""};
}

}  // namespace

result<open_file> open_file::open(const std::filesystem::path& path) {
  // Without O_NONBLOCK a pipe would hold up whoever opens it.
  open_file file(path, ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file.descriptor_ < 0) return failed(path, errno);
  struct stat status {};
  if (::fstat(file.descriptor_, &status) != 0) return failed(path, errno);
  if (!S_ISREG(status.st_mode)) return no_file(path);
  file.bytes_ = static_cast<std::uint64_t>(status.st_size);
  file.place_ = place_in(status);
  return file;
}

open_file::open_file(open_file&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      bytes_(other.bytes_),
      place_(other.place_) {}

open_file& open_file::operator=(open_file&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  bytes_ = other.bytes_;
  place_ = other.place_;
  return *this;
}

open_file::~open_file() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

result<void> open_file::read(std::uint64_t offset, std::span<std::byte> into) const {
  while (!into.empty()) {
    const auto count = ::pread(descriptor_, into.data(), into.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return failed(path_, errno);
    if (count == 0)
      return error{errc::bad_file,
                   fmt::format("{} ends after {} bytes, it had {}", path_.string(), offset, bytes_),
                   ""};
    into = into.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  return {};
}

result<file_status> status_of(const std::filesystem::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return failed(path, errno);
  if (!S_ISREG(status.st_mode)) return no_file(path);
  return file_status{static_cast<std::uint64_t>(status.st_size), place_in(status)};
}

}  // namespace tandem::shelf
