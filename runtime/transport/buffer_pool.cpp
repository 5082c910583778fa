#include "runtime/transport/buffer_pool.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

namespace tandem::transport {

namespace {

constexpr std::size_t smallest_block = 64 << 10;

std::size_t capacity_for(std::size_t size) { return std::bit_ceil(std::max(size, smallest_block)); }

}  // namespace

buffer::buffer(std::shared_ptr<buffer_pool> home, block from, std::size_t size)
    : home_(std::move(home)), block_(from), data_(from.data), size_(size) {}

buffer::buffer(std::size_t size) : heap_(size), data_(heap_.data()), size_(size) {}

buffer::~buffer() {
  if (home_) home_->give_back(block_);
}

std::shared_ptr<buffer_pool> buffer_pool::make(std::shared_ptr<ucx_context> context,
                                               std::uint64_t bytes_max) {
  return std::shared_ptr<buffer_pool>(new buffer_pool(std::move(context), bytes_max));
}

buffer_pool::buffer_pool(std::shared_ptr<ucx_context> context, std::uint64_t bytes_max)
    : context_(std::move(context)), bytes_max_(bytes_max) {}

buffer_pool::~buffer_pool() {
  ensure(in_use_ == 0, "a pool outlives its buffers");
  for (const auto& [capacity, blocks] : kept_)
    for (const auto& one : blocks) unmap(one);
}

result<buffer_ptr> buffer_pool::take(std::size_t size) {
  const std::uint64_t one[] = {size};
  auto taken = take_all(one);
  if (!taken) return taken.error();
  return std::move(taken->front());
}

result<std::vector<buffer_ptr>> buffer_pool::take_all(std::span<const std::uint64_t> sizes) {
  std::uint64_t asked = 0;
  std::uint64_t needed = 0;
  for (const auto size : sizes) {
    asked += size;
    if (size <= bytes_max_) needed += capacity_for(size);
    if (size > bytes_max_ || needed > bytes_max_)
      return error{errc::too_large,
                   fmt::format("buffers of {} bytes, in blocks of powers of two; the pool has {}",
                               asked, bytes_max_),
                   ""};
  }
  std::vector<buffer_ptr> taken;
  std::vector<buffer::block> blocks;
  {
    const std::lock_guard lock(mutex_);
    if (in_use_ + needed > bytes_max_)
      return error{
          errc::no_memory,
          fmt::format("buffers of {} bytes do not fit: {} of the pool's {} bytes are in use", asked,
                      in_use_, bytes_max_),
          ""};
    in_use_ += needed;
    for (const auto size : sizes) {
      buffer::block block;
      block.capacity = capacity_for(size);
      if (auto& same = kept_[block.capacity]; !same.empty()) {
        block = same.back();
        same.pop_back();
        kept_bytes_ -= block.capacity;
      }
      blocks.push_back(block);
    }
    make_room();
  }
  // Fresh memory is mapped without the lock: that takes long.
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].data == nullptr) {
      auto block = map(blocks[i].capacity);
      if (!block) {
        const std::lock_guard lock(mutex_);
        for (std::size_t left = i; left < blocks.size(); ++left) put_back(blocks[left]);
        return block.error();
      }
      blocks[i] = *block;
    }
    taken.push_back(buffer_ptr(new buffer(shared_from_this(), blocks[i], sizes[i])));
  }
  return taken;
}

buffer_ptr buffer_pool::take_small(std::size_t size) { return buffer_ptr(new buffer(size)); }

std::uint64_t buffer_pool::bytes_in_use() const {
  const std::lock_guard lock(mutex_);
  return in_use_;
}

std::uint64_t buffer_pool::bytes_held() const {
  const std::lock_guard lock(mutex_);
  return in_use_ + kept_bytes_;
}

void buffer_pool::on_release(std::function<void()> call) {
  const std::lock_guard lock(mutex_);
  released_ = std::move(call);
}

// What is kept and in use together stays within the bound: kept blocks go, the largest first.
void buffer_pool::make_room() {
  for (auto it = kept_.rbegin(); it != kept_.rend(); ++it) {
    auto& blocks = it->second;
    while (!blocks.empty() && in_use_ + kept_bytes_ > bytes_max_) {
      unmap(blocks.back());
      blocks.pop_back();
      kept_bytes_ -= it->first;
    }
  }
}

void buffer_pool::put_back(const buffer::block& what) {
  in_use_ -= what.capacity;
  if (what.data == nullptr) return;
  kept_bytes_ += what.capacity;
  kept_[what.capacity].push_back(what);
}

// With the lock held until the call is over, so that on_release({}) is a promise.
void buffer_pool::give_back(const buffer::block& what) {
  const std::lock_guard lock(mutex_);
  put_back(what);
  if (released_) released_();
}

result<buffer::block> buffer_pool::map(std::size_t capacity) const {
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_LENGTH | UCP_MEM_MAP_PARAM_FIELD_FLAGS;
  params.length = capacity;
  params.flags = UCP_MEM_MAP_ALLOCATE;
  buffer::block made;
  made.capacity = capacity;
  if (const auto rc = ucp_mem_map(context_->handle(), &params, &made.registration); rc != UCS_OK)
    return ucx_error(fmt::format("mapping {} bytes", capacity), rc);
  ucp_mem_attr_t attr{};
  attr.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS;
  const auto rc = ucp_mem_query(made.registration, &attr);
  ensure(rc == UCS_OK, "where mapped memory lies");
  made.data = static_cast<std::byte*>(attr.address);
  return made;
}

void buffer_pool::unmap(const buffer::block& what) const {
  ucp_mem_unmap(context_->handle(), what.registration);
}

}  // namespace tandem::transport
