#include "kernels/cpu/thread_team.hpp"

#include "kernels/spin_wait.hpp"

#include <pthread.h>
#include <sched.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tandem::kernels::cpu {
namespace {

// A core that does not exist, or that the cgroup keeps from us: run unpinned.
void pin_to(int core) {
  if (core < 0 || core >= CPU_SETSIZE) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(core), &set);
  static_cast<void>(pthread_setaffinity_np(pthread_self(), sizeof set, &set));
}

// Subnormals count as zero in every thread: bits depend on it, and they cost a hundred cycles each.
void set_float_modes() {
#if defined(__x86_64__)
  _mm_setcsr(_mm_getcsr() | 0x8040U);
#endif
}

}  // namespace

thread_team::thread_team(std::vector<int> cores) : cores_(std::move(cores)) {
  size_ = cores_.empty() ? 1 : static_cast<int>(cores_.size());
  for (int t = 1; t < size_; ++t) workers_.emplace_back([this, t] { serve(t); });
}

thread_team::~thread_team() {
  stopping_ = true;
  round_.value.fetch_add(1, std::memory_order_release);
  round_.value.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void thread_team::attach_calling_thread() {
  if (!cores_.empty()) pin_to(cores_.front());
  set_float_modes();
}

void thread_team::run(function_ref<void(int)> work) {
  if (size_ == 1) return work(0);
  work_ = &work;
  running_.value.store(static_cast<std::uint32_t>(size_ - 1), std::memory_order_relaxed);
  round_.value.fetch_add(1, std::memory_order_release);
  round_.value.notify_all();
  work(0);
  for (std::uint32_t left = running_.value.load(std::memory_order_acquire); left != 0;
       left = running_.value.load(std::memory_order_acquire)) {
    wait_while(running_.value, left);
  }
}

void thread_team::barrier() {
  if (size_ == 1) return;
  const std::uint32_t phase = released_.value.load(std::memory_order_acquire);
  const auto last = static_cast<std::uint32_t>(size_ - 1);
  if (arrived_.value.fetch_add(1, std::memory_order_acq_rel) == last) {
    arrived_.value.store(0, std::memory_order_relaxed);
    released_.value.fetch_add(1, std::memory_order_release);
    released_.value.notify_all();
    return;
  }
  wait_while(released_.value, phase);
}

void thread_team::serve(int thread) {
  pin_to(cores_[static_cast<std::size_t>(thread)]);
  set_float_modes();
  for (std::uint32_t seen = 0;; ++seen) {
    wait_while(round_.value, seen);
    if (stopping_) return;
    (*work_)(thread);
    if (running_.value.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.value.notify_one();
  }
}

}  // namespace tandem::kernels::cpu
