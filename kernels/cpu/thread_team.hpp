// The threads of one device: fork and join of a few microseconds' work. The caller is thread 0.
// Idle workers spin for a short time, then sleep, so a device at rest costs nothing and a
// descheduled partner costs a wake-up, not a time slice.
#pragma once

#include "kernels/backend.hpp"

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace tandem::kernels::cpu {

class thread_team {
 public:
  // One thread a core, each pinned where the system allows it; no cores: the caller alone.
  explicit thread_team(std::vector<int> cores);
  ~thread_team();
  thread_team(const thread_team&) = delete;
  thread_team& operator=(const thread_team&) = delete;

  int size() const { return size_; }

  // Pins the caller to the first core and sets its float modes as the workers'.
  void attach_calling_thread();

  // work(0) here, work(1)... on the workers; returns when all are done.
  void run(function_ref<void(int)> work);

  // Inside `run`, called by every thread: none goes on before all have arrived.
  void barrier();

 private:
  void serve(int thread);

  // Each word on a line of its own: one side spins on it while the other writes.
  struct alignas(128) word {
    std::atomic<std::uint32_t> value{0};
  };

  std::vector<int> cores_;
  int size_ = 1;
  function_ref<void(int)>* work_ = nullptr;
  bool stopping_ = false;
  word round_;
  word running_;
  word arrived_;
  word released_;
  std::vector<std::thread> workers_;
};

}  // namespace tandem::kernels::cpu
