#include "runtime/serve/rank_threads.hpp"

#include "kernels/ensure.hpp"
#include "kernels/local_collective.hpp"
#include "kernels/spin_wait.hpp"

#include <utility>

namespace tandem::serve {
namespace {

bool is_only_an_echo(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const kernels::rank_lost&) {
    return true;
  } catch (...) {
    return false;
  }
}

}  // namespace

rank_threads::rank_threads(int ranks) : thrown_(static_cast<std::size_t>(ranks)) {
  ensure(ranks > 0, "a group of no ranks");
  for (int rank = 1; rank < ranks; ++rank) threads_.emplace_back([this, rank] { serve(rank); });
}

rank_threads::~rank_threads() {
  stopping_ = true;
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void rank_threads::run(kernels::function_ref<void(int)> work, kernels::function_ref<void()> lost) {
  work_ = &work;
  lost_ = &lost;
  running_.store(static_cast<std::uint32_t>(threads_.size()), std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  work_on(0);
  for (auto left = running_.load(std::memory_order_acquire); left != 0;
       left = running_.load(std::memory_order_acquire))
    kernels::wait_while(running_, left);
  std::exception_ptr first;
  for (auto& thrown : thrown_) {
    if (thrown && (!first || (is_only_an_echo(first) && !is_only_an_echo(thrown)))) first = thrown;
    thrown = nullptr;
  }
  if (first) std::rethrow_exception(first);
}

void rank_threads::serve(int rank) {
  for (std::uint32_t seen = 0;; ++seen) {
    kernels::wait_while(round_, seen);
    if (stopping_) return;
    work_on(rank);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
  }
}

void rank_threads::work_on(int rank) {
  try {
    (*work_)(rank);
  } catch (...) {
    thrown_[static_cast<std::size_t>(rank)] = std::current_exception();
    (*lost_)();
  }
}

}  // namespace tandem::serve
