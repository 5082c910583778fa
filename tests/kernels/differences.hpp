// Derivatives from values alone: central differences of fourth order in float64, exact to about ten
// digits, so that a backward op can be held against its forward's formula and nothing else.
#pragma once

#include "tests/kernels/test_device.hpp"

#include <functional>

namespace tandem::kernels::test {

using doubles = std::vector<double>;

inline doubles widened(const floats& x) { return {x.begin(), x.end()}; }

inline double dot(const doubles& a, const floats& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * static_cast<double>(b[i]);
  return sum;
}

// The gradient at x of dy . forward(x).
inline doubles differences(doubles x, const floats& dy,
                           const std::function<doubles(const doubles&)>& forward) {
  constexpr double h = 1e-3;
  doubles gradient;
  for (double& v : x) {
    const double at = v;
    const auto loss = [&](double shift) {
      v = at + shift;
      return dot(forward(x), dy);
    };
    const double near = loss(h) - loss(-h);
    const double far = loss(2 * h) - loss(-2 * h);
    gradient.push_back((8.0 * near - far) / (12.0 * h));
    v = at;
  }
  return gradient;
}

// The worst error of each instruction set's `result` against the truth: the plain kernel's must be
// small, a fast one's at most twice that and a rounding.
class exactness {
 public:
  explicit exactness(doubles truth) : truth_(std::move(truth)), scale_(1.0 + largest_of(truth_)) {}

  bool holds(cpu::instruction_set set, const floats& result, double plain_limit = 3e-6) {
    error_ = largest_error(result, truth_);
    if (set == cpu::instruction_set::reference) {
      plain_ = error_;
      return error_ <= plain_limit * scale_;
    }
    return error_ <= 2.0 * plain_ + 2e-7 * scale_;
  }
  double error() const { return error_; }
  double plain_error() const { return plain_; }

 private:
  doubles truth_;
  double scale_;
  double error_ = 0.0;
  double plain_ = 0.0;
};

}  // namespace tandem::kernels::test
