// The threads of a group's ranks: the caller is the first one's, each other rank has one of its
// own. What they are given is done on all of them before `run` returns.
#pragma once

#include "kernels/backend.hpp"

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace tandem::serve {

class rank_threads {
 public:
  explicit rank_threads(int ranks);
  ~rank_threads();
  rank_threads(const rank_threads&) = delete;
  rank_threads& operator=(const rank_threads&) = delete;

  // work(0) here, work(1)... on the others. `lost` is called, on its thread, for each that throws;
  // then the first one's exception is thrown here, of those that say more than that another rank
  // is lost.
  void run(kernels::function_ref<void(int)> work, kernels::function_ref<void()> lost);

 private:
  void serve(int rank);
  void work_on(int rank);

  kernels::function_ref<void(int)>* work_ = nullptr;
  kernels::function_ref<void()>* lost_ = nullptr;
  bool stopping_ = false;
  std::vector<std::exception_ptr> thrown_;  // by each rank
  alignas(128) std::atomic<std::uint32_t> round_{0};
  alignas(128) std::atomic<std::uint32_t> running_{0};
  std::vector<std::thread> threads_;
};

}  // namespace tandem::serve
