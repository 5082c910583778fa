// Blocks that a sequence leaves behind on a device it is handed over from, kept as they are until
// whoever goes on with it has copied them. The lender takes them back when the loan is gone, or
// before, when it needs them and nobody copies: then they are computed again. Lender and borrower
// are schedulers of one thread.
#pragma once

#include "runtime/memory/kv_blocks.hpp"
#include "runtime/memory/kv_memory.hpp"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace tandem::serve {

class kv_loan {
 public:
  using block_list = std::vector<memory::block_index>;

  // `positions` of them are written; `returned` is where the lender looks for blocks.
  kv_loan(std::weak_ptr<const memory::kv_memory> memory, block_list blocks, int positions,
          std::uint64_t weights_version, bool publishes, std::shared_ptr<block_list> returned)
      : memory_(std::move(memory)),
        blocks_(std::move(blocks)),
        positions_(positions),
        weights_version_(weights_version),
        publishes_(publishes),
        returned_(std::move(returned)) {}
  ~kv_loan() { give_back(); }
  kv_loan(const kv_loan&) = delete;
  kv_loan& operator=(const kv_loan&) = delete;

  // Null once the device is gone or the blocks were called back.
  std::shared_ptr<const memory::kv_memory> memory() const {
    return blocks_.empty() ? nullptr : memory_.lock();
  }
  // A step that copies them is in flight, and counts.
  void set_copying(bool now) { copying_ = now; }
  bool call_back() {
    if (copying_ || blocks_.empty()) return false;
    give_back();
    return true;
  }
  const block_list& blocks() const { return blocks_; }
  int positions() const { return positions_; }
  std::uint64_t weights_version() const { return weights_version_; }
  bool publishes() const { return publishes_; }  // all of it is of that version

 private:
  void give_back() {
    returned_->insert(returned_->end(), blocks_.begin(), blocks_.end());
    blocks_.clear();
  }

  std::weak_ptr<const memory::kv_memory> memory_;
  block_list blocks_;
  int positions_;
  std::uint64_t weights_version_;
  bool publishes_;
  bool copying_ = false;
  std::shared_ptr<block_list> returned_;
};

}  // namespace tandem::serve
