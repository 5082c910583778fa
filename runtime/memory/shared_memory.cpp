#include "runtime/memory/shared_memory.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace tandem::memory {
namespace {

// Process ids are of one namespace, and of one boot.
const std::string& this_machine_id() {
  static const std::string id = [] {
    std::string boot;
    std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
    std::array<char, 64> processes{};
    const auto length = ::readlink("/proc/self/ns/pid", processes.data(), processes.size() - 1);
    return boot + " " + std::string(processes.data(), length > 0 ? length : 0);
  }();
  return id;
}

class descriptor {
 public:
  explicit descriptor(int file) : file_(file) {}
  ~descriptor() {
    if (file_ >= 0) ::close(file_);
  }
  descriptor(const descriptor&) = delete;
  descriptor& operator=(const descriptor&) = delete;
  int get() const { return file_; }
  int release() { return std::exchange(file_, -1); }

 private:
  int file_;
};

}  // namespace

std::span<std::byte> shared_pages::map(std::size_t bytes, std::string& why) {
  const auto failed = [&]() -> std::span<std::byte> {
    why = std::strerror(errno);
    return {};
  };
  descriptor file(::memfd_create("tandem", MFD_CLOEXEC));
  struct stat facts {};
  if (file.get() < 0 || ::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0 ||
      ::fstat(file.get(), &facts) != 0)
    return failed();
  void* const start = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (start == MAP_FAILED) return failed();
  ::madvise(start, bytes, MADV_HUGEPAGE);  // advice only
  auto* const first = static_cast<std::byte*>(start);
  const std::lock_guard lock(mutex_);
  places_[first] = {this_machine_id(), ::getpid(), file.release(), facts.st_ino, bytes};
  return {first, bytes};
}

void shared_pages::unmap(std::span<std::byte> memory) {
  ::munmap(memory.data(), memory.size());
  const std::lock_guard lock(mutex_);
  if (const auto found = places_.find(memory.data()); found != places_.end()) {
    ::close(found->second.file);
    places_.erase(found);
  }
}

void shared_pages::read(std::span<const std::byte> memory, std::byte* host) {
  std::copy(memory.begin(), memory.end(), host);
}
void shared_pages::write(std::span<const std::byte> host, std::byte* memory) {
  std::copy(host.begin(), host.end(), memory);
}

std::optional<shared_place> shared_pages::place_of(std::span<const std::byte> memory) const {
  const std::lock_guard lock(mutex_);
  const auto found = places_.find(memory.data());
  if (found == places_.end()) return std::nullopt;
  return found->second;
}

result<shared_view> shared_view::open(const shared_place& where) {
  const auto refuse = [&](const char* why) {
    return error{errc::unavailable,
                 fmt::format("memory of process {} cannot be read: {}", where.process, why), ""};
  };
  if (where.machine != this_machine_id()) return refuse("it is of another machine");
  const auto path = fmt::format("/proc/{}/fd/{}", where.process, where.file);
  const descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return refuse(std::strerror(errno));
  struct stat facts {};
  if (::fstat(file.get(), &facts) != 0) return refuse(std::strerror(errno));
  if (facts.st_ino != where.inode || facts.st_size < 0 || where.bytes == 0 ||
      static_cast<std::uint64_t>(facts.st_size) != where.bytes)
    return refuse("another one has its number now");
  void* const start = ::mmap(nullptr, where.bytes, PROT_READ, MAP_SHARED, file.get(), 0);
  if (start == MAP_FAILED) return refuse(std::strerror(errno));
  return shared_view({static_cast<const std::byte*>(start), where.bytes});
}

shared_view::shared_view(shared_view&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

shared_view& shared_view::operator=(shared_view&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

shared_view::~shared_view() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace tandem::memory
