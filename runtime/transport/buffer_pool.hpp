// Registered memory for tensors that travel: blocks of powers of two, kept and used again (a fresh
// block costs its page faults, which is more than the copy), all together never above one bound.
#pragma once

#include "runtime/transport/ucx_context.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace tandem::transport {

class buffer_pool;

class buffer {
 public:
  ~buffer();
  buffer(const buffer&) = delete;
  buffer& operator=(const buffer&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::span<std::byte> bytes() { return {data_, size_}; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  friend class buffer_pool;
  struct block {
    std::byte* data = nullptr;
    std::size_t capacity = 0;
    ucp_mem_h registration = nullptr;
  };
  buffer(std::shared_ptr<buffer_pool> home, block from, std::size_t size);
  explicit buffer(std::size_t size);  // of the heap

  std::shared_ptr<buffer_pool> home_;
  block block_;
  std::vector<std::byte> heap_;
  std::byte* data_;
  std::size_t size_;
};
using buffer_ptr = std::shared_ptr<buffer>;

// Safe to use from any thread. Buffers keep their pool, and the pool its context, alive.
class buffer_pool : public std::enable_shared_from_this<buffer_pool> {
 public:
  static std::shared_ptr<buffer_pool> make(std::shared_ptr<ucx_context> context,
                                           std::uint64_t bytes_max);
  ~buffer_pool();

  // Not zeroed. Refused when it can never fit (too_large), does not fit now (no_memory), or the
  // system has none (io).
  result<buffer_ptr> take(std::size_t size);
  // All of these or none: who holds some and waits for the rest could wait for itself.
  result<std::vector<buffer_ptr>> take_all(std::span<const std::uint64_t> sizes);
  // A small one outside of the bound, of the heap: for what has arrived already.
  static buffer_ptr take_small(std::size_t size);

  std::uint64_t bytes_in_use() const;
  std::uint64_t bytes_held() const;  // in use or kept
  // Called, on any thread, whenever a buffer came back, with the pool locked. Empty: nobody cares
  // any more, and no call is under way.
  void on_release(std::function<void()> call);

 private:
  friend class buffer;
  buffer_pool(std::shared_ptr<ucx_context> context, std::uint64_t bytes_max);
  result<buffer::block> map(std::size_t capacity) const;
  void unmap(const buffer::block& what) const;
  void make_room();                          // with mutex_ held
  void put_back(const buffer::block& what);  // likewise
  void give_back(const buffer::block& what);

  const std::shared_ptr<ucx_context> context_;
  const std::uint64_t bytes_max_;
  mutable std::mutex mutex_;
  std::map<std::size_t, std::vector<buffer::block>> kept_;  // by capacity
  std::uint64_t in_use_ = 0;
  std::uint64_t kept_bytes_ = 0;
  std::function<void()> released_;
};

}  // namespace tandem::transport
