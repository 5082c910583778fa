// A long call that is run in pieces by somebody who has other things to do meanwhile.
#pragma once

#include "runtime/pause_point.hpp"

#include <boost/context/fiber.hpp>

#include <chrono>
#include <exception>
#include <functional>

namespace tandem {

// The call has a stack of its own and runs only within `advance`, so it needs no locks and is no
// thread. What is destroyed before it is done is unwound: its own objects are destroyed.
class paused_call {
 public:
  // `piece` is how long it runs at least before a pause_point gives the thread back.
  explicit paused_call(std::function<void(const pause_point&)> work,
                       std::chrono::nanoseconds piece = std::chrono::milliseconds(10));
  ~paused_call();
  paused_call(const paused_call&) = delete;
  paused_call& operator=(const paused_call&) = delete;

  // Goes on to the next pause; false once it is done. What it throws comes out here.
  bool advance();

 private:
  std::chrono::nanoseconds piece_;
  std::chrono::steady_clock::time_point resumed_;
  boost::context::fiber caller_;  // while it runs
  boost::context::fiber call_;
  std::exception_ptr thrown_;
};

}  // namespace tandem
