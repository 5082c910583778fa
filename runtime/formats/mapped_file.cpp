#include "runtime/formats/mapped_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

namespace tandem::formats {

namespace {

// Closes a descriptor at the end of a scope; a mapping outlives its descriptor.
class descriptor {
 public:
  explicit descriptor(int fd) : fd_(fd) {}
  descriptor(const descriptor&) = delete;
  descriptor& operator=(const descriptor&) = delete;
  ~descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

error refusal(const std::filesystem::path& path, int cause) {
  const errc code = cause == ENOENT || cause == ENOTDIR ? errc::not_found : errc::io;
  return {code, fmt::format("{}: {}", path.string(), std::strerror(cause)), {}};
}

}  // namespace

result<mapped_file> mapped_file::open(const std::filesystem::path& path) {
  // Non-blocking: a FIFO must be refused below, not waited for.
  const descriptor fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (fd.get() < 0) return refusal(path, errno);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return refusal(path, errno);
  if (!S_ISREG(info.st_mode))
    return error{errc::bad_file, fmt::format("{}: not a regular file", path.string()), {}};

  mapped_file file;
  const auto size = static_cast<std::size_t>(info.st_size);
  if (size == 0) return file;  // nothing to map; its reader says what is missing
  void* const start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (start == MAP_FAILED) return refusal(path, errno);
  file.bytes_ = {static_cast<const std::byte*>(start), size};
  return file;
}

mapped_file::mapped_file(mapped_file&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

mapped_file& mapped_file::operator=(mapped_file&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

mapped_file::~mapped_file() {
  if (bytes_.data() != nullptr)
    ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());  // munmap takes void*
}

void mapped_file::drop(std::span<const std::byte> range) const {
  if (range.empty() || bytes_.empty()) return;
  ensure(
      range.data() >= bytes_.data() && range.data() + range.size() <= bytes_.data() + bytes_.size(),
      "drop of bytes outside the mapping");
  // Whole pages, outwards: a neighbour's bytes on a shared page fault in again when read.
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const auto offset = static_cast<std::size_t>(range.data() - bytes_.data());
  const std::size_t first = offset / page * page;
  ::madvise(const_cast<std::byte*>(bytes_.data()) + first, offset + range.size() - first,
            MADV_DONTNEED);
}

}  // namespace tandem::formats
