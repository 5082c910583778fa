// SIGTERM and SIGINT for a process that drains: the first asks to end, the second ends at once.
// Also where other threads report that the process is broken, so that the main thread waits in one
// place.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace tandem::gateway {

class process_signals {
 public:
  enum class outcome { holds, ask_to_end, broken, too_late };

  // Blocks the signals in this thread and all it makes later; one of them per process.
  process_signals();
  ~process_signals();
  process_signals(const process_signals&) = delete;
  process_signals& operator=(const process_signals&) = delete;

  // Until `condition` holds, a signal came, or something broke. `condition` is looked at again
  // after each `wake`.
  outcome wait(const std::function<bool()>& condition);
  // As `wait`, after the first signal: until the condition holds, something broke, or time is up.
  outcome wait_until(std::chrono::steady_clock::time_point deadline,
                     const std::function<bool()>& condition);

  void wake();
  void broken(std::string why);
  std::string why() const;

 private:
  void listen();

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int signals_ = 0;
  std::string why_;
  std::thread listener_;
};

}  // namespace tandem::gateway
