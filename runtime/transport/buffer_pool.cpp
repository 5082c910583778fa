#include "runtime/transport/buffer_pool.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

namespace tandem::transport {

namespace {
constexpr std::size_t smallest_block = 64 << 10;
}

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
  if (size > bytes_max_)
    return error{errc::too_large,
                 fmt::format("a buffer of {} bytes, the pool has {}", size, bytes_max_), ""};
  const std::size_t capacity = std::bit_ceil(std::max(size, smallest_block));
  std::unique_lock lock(mutex_);
  if (auto& blocks = kept_[capacity]; !blocks.empty()) {
    const auto block = blocks.back();
    blocks.pop_back();
    kept_bytes_ -= capacity;
    in_use_ += capacity;
    lock.unlock();
    return buffer_ptr(new buffer(shared_from_this(), block, size));
  }
  if (!make_room(capacity))
    return error{errc::no_memory,
                 fmt::format("a buffer of {} bytes does not fit: {} of the pool's {} bytes are in "
                             "use",
                             size, in_use_, bytes_max_),
                 ""};
  in_use_ += capacity;
  lock.unlock();
  auto block = map(capacity);
  if (!block) {
    lock.lock();
    in_use_ -= capacity;
    return block.error();
  }
  return buffer_ptr(new buffer(shared_from_this(), *block, size));
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

// Kept blocks of other sizes go, the largest first.
bool buffer_pool::make_room(std::size_t capacity) {
  if (in_use_ + capacity > bytes_max_) return false;
  for (auto it = kept_.rbegin(); it != kept_.rend(); ++it) {
    auto& blocks = it->second;
    while (!blocks.empty() && in_use_ + kept_bytes_ + capacity > bytes_max_) {
      unmap(blocks.back());
      blocks.pop_back();
      kept_bytes_ -= it->first;
    }
  }
  return true;
}

void buffer_pool::give_back(const buffer::block& what) {
  std::function<void()> tell;
  {
    const std::lock_guard lock(mutex_);
    in_use_ -= what.capacity;
    kept_bytes_ += what.capacity;
    kept_[what.capacity].push_back(what);
    tell = released_;
  }
  if (tell) tell();
}

result<buffer::block> buffer_pool::map(std::size_t capacity) const {
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_LENGTH | UCP_MEM_MAP_PARAM_FIELD_FLAGS;
  params.length = capacity;
  params.flags = UCP_MEM_MAP_ALLOCATE;
  buffer::block made;
  made.capacity = capacity;
  if (const auto rc = ucp_mem_map(context_->handle(), &params, &made.registration); rc != UCS_OK)
    return error{errc::no_memory, ucx_error(fmt::format("mapping {} bytes", capacity), rc).detail,
                 ""};
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
