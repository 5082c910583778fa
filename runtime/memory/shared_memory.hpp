// Memory of this process that other processes of the same user and machine may map to read. It has
// no name in a file system: it is found by process id and file descriptor, and is gone with the
// last process that has it, however that one ends.
#pragma once

#include "runtime/memory/memory_source.hpp"
#include "runtime/result.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>

namespace tandem::memory {

struct shared_place {
  std::string machine;  // its boot and its namespace of processes; elsewhere the rest means nothing
  std::int64_t process = 0;
  int file = -1;            // a descriptor of that process
  std::uint64_t inode = 0;  // whoever has that number later has another
  std::uint64_t bytes = 0;
  bool operator==(const shared_place&) const = default;
};

// Zeroed pages, taken from the machine when first touched; any thread.
class shared_pages final : public memory_source {
 public:
  std::span<std::byte> map(std::size_t bytes, std::string& why) override;
  void unmap(std::span<std::byte> memory) override;
  bool host() const override { return true; }
  void read(std::span<const std::byte> memory, std::byte* host) override;
  void write(std::span<const std::byte> host, std::byte* memory) override;

  // None: not mapped here.
  std::optional<shared_place> place_of(std::span<const std::byte> memory) const;

 private:
  mutable std::mutex mutex_;
  std::map<const std::byte*, shared_place> places_;
};

// What lies there, to be read for as long as it is held. unavailable: its process is gone, or is of
// another machine or user.
class shared_view {
 public:
  static result<shared_view> open(const shared_place& where);
  shared_view(shared_view&& other) noexcept;
  shared_view& operator=(shared_view&& other) noexcept;
  ~shared_view();

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit shared_view(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> bytes_;
};

}  // namespace tandem::memory
