#include "runtime/shelf/lock_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace tandem::shelf {
namespace {

// Who held it before may have removed the name while we waited for the lock: then it locks nothing.
bool is_still_named(int descriptor, const std::filesystem::path& path) {
  struct stat ours {};
  struct stat named {};
  return ::fstat(descriptor, &ours) == 0 && ::stat(path.c_str(), &named) == 0 &&
         ours.st_dev == named.st_dev && ours.st_ino == named.st_ino;
}

}  // namespace

result<std::optional<lock_file>> lock_file::take(const std::filesystem::path& path, kind how) {
  lock_file made(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (made.descriptor_ < 0)
    return error{errc::io, fmt::format("{}: {}", path.string(), std::strerror(errno)), ""};
  if (::flock(made.descriptor_, (how == kind::alone ? LOCK_EX : LOCK_SH) | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK || errno == EINTR) return std::optional<lock_file>();
    return error{errc::io, fmt::format("locking {}: {}", path.string(), std::strerror(errno)), ""};
  }
  if (!is_still_named(made.descriptor_, path)) return std::optional<lock_file>();
  return std::optional<lock_file>(std::move(made));
}

lock_file::lock_file(lock_file&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

lock_file& lock_file::operator=(lock_file&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

lock_file::~lock_file() { give_back(); }

void lock_file::give_back() {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

void lock_file::touch() const { (void)::futimens(descriptor_, nullptr); }

namespace {

error unwritten() {
  return {errc::io, fmt::format("writing a lock's mark: {}", std::strerror(errno)), ""};
}

}  // namespace

result<void> lock_file::write(std::string_view mark) const {
  const auto size = static_cast<ssize_t>(mark.size());
  if (::ftruncate(descriptor_, 0) == 0 &&
      ::pwrite(descriptor_, mark.data(), mark.size(), 0) == size)
    return {};
  return unwritten();
}

result<void> lock_file::write_to_disk(std::string_view mark) const {
  auto written = write(mark);
  return written && ::fdatasync(descriptor_) != 0 ? unwritten() : written;
}

}  // namespace tandem::shelf
