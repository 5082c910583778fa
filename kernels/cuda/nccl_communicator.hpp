// One rank's hold on a group of NCCL: how ranks meet, and how one notices that another is lost. A
// communicator does not block: what it was asked for is waited for here, with an end to patience,
// and a thread of its own looks whether it still works.
#pragma once

#include "kernels/cuda/nccl_library.hpp"

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace tandem::kernels::cuda {

// Says it in one line and ends the process: ranks of one model live and die together.
[[noreturn]] void end_process(const std::string& why);

struct nccl_patience {
  std::chrono::milliseconds for_others{120'000};  // to come, and to go
  std::chrono::milliseconds between_looks{200};
};

class nccl_communicator {
 public:
  // The calling thread's GPU is the rank's. Null with why_not where it did not come to be. `lost`
  // is told, by either thread, that the group is broken; it need not return.
  static std::unique_ptr<nccl_communicator> join(
      const nccl_functions& call, const nccl_id& id, int rank, int size, std::string& why_not,
      const nccl_patience& patience = {},
      std::function<void(const std::string&)> lost = end_process);
  // Gives a broken one up; of a sound one all that was asked for is done before.
  ~nccl_communicator();
  nccl_communicator(const nccl_communicator&) = delete;
  nccl_communicator& operator=(const nccl_communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  const nccl_functions& call() const { return call_; }

  // ask(communicator) asks NCCL for an operation; on return the stream knows it. `operation` stays
  // valid; it and the shape are for the words about a failure.
  template <class Ask>
  void run(const char* operation, std::int64_t rows, std::int64_t columns, const Ask& ask) {
    begin(operation, rows, columns);
    settle(ask(comm_));
  }

 private:
  nccl_communicator(const nccl_functions& call, int rank, int size)
      : call_(call), rank_(rank), size_(size) {}

  void begin(const char* operation, std::int64_t rows, std::int64_t columns);
  void settle(ncclResult_t result);
  void fail(ncclResult_t result);
  void watch();
  // What it says while it is at work, or when patience ends.
  ncclResult_t state() const;
  ncclResult_t settled(ncclResult_t result) const;

  const nccl_functions& call_;
  int rank_;
  int size_;
  nccl_patience patience_;
  std::function<void(const std::string&)> lost_;
  ncclComm_t comm_ = nullptr;

  std::mutex mutex_;  // of what follows
  std::condition_variable ending_;
  bool ends_ = false;
  bool broken_ = false;
  const char* operation_ = "nothing yet";
  std::int64_t rows_ = 0;
  std::int64_t columns_ = 0;
  std::thread watcher_;
};

}  // namespace tandem::kernels::cuda
