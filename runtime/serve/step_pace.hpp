// How long a device may take over a step before it counts as dead: many times what its steps took
// of late, for as many rows. Pure: no clock.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace tandem::serve {

// Never less, however fast the steps were: a busy machine stalls for seconds, and between two steps
// a job may open, which reads the whole model and makes room of 16 bytes a parameter.
std::chrono::milliseconds step_patience_min(std::int64_t parameters);

class step_pace {
 public:
  // From its sending to its answer.
  void add(int rows, std::chrono::nanoseconds took);
  // max(`least`, 20 x the slowest of the recent steps, 20 x the slowest row x `rows`), at most
  // `most`; of a device that has run no step yet: `most`.
  std::chrono::milliseconds patience(int rows, std::chrono::milliseconds least,
                                     std::chrono::milliseconds most) const;
  std::chrono::nanoseconds slowest() const;
  // What it ran is no measure for what comes: another life of the device.
  void forget() { count_ = 0; }

 private:
  static constexpr std::size_t kept = 64;
  struct one {
    int rows = 1;
    std::chrono::nanoseconds took{};
  };
  std::array<one, kept> recent_;
  std::size_t count_ = 0;  // ever since
};

}  // namespace tandem::serve
