// Where all chance of a simulation comes from: one seed, one stream a purpose, so that a knob
// changes one of them.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>

namespace tandem::sim {

// SplitMix64 (Steele, Lea & Flood 2014).
class random_stream {
 public:
  explicit random_stream(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }
  std::uint64_t below(std::uint64_t n) { return next() % n; }
  double share() { return static_cast<double>(next() >> 11U) * 0x1p-53; }
  bool chance(double p) { return share() < p; }
  // Until the next of so many a second that come by chance.
  std::chrono::nanoseconds exponential(double per_second) {
    const double seconds = -std::log(1.0 - share()) / std::max(per_second, 1e-6);
    return std::chrono::nanoseconds(static_cast<std::int64_t>(seconds * 1e9) + 1);
  }

 private:
  std::uint64_t state_;
};

constexpr std::uint64_t fold(std::uint64_t hash, std::uint64_t with) {
  hash = (hash ^ with) * 0x9e3779b97f4a7c15U;
  return hash ^ (hash >> 32U);
}

}  // namespace tandem::sim
