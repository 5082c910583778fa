#include "runtime/train/example_order.hpp"

#include "kernels/ensure.hpp"

#include <limits>
#include <numeric>
#include <utility>

namespace tandem::train {
namespace {

constexpr std::uint64_t golden_gamma = 0x9E3779B97F4A7C15U;

std::uint64_t mixed(std::uint64_t z) {
  z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31U);
}

class draws {
 public:
  draws(std::uint64_t seed, std::uint64_t epoch)
      : state_(mixed(mixed(seed + golden_gamma) + (epoch + 1) * golden_gamma)) {}

  // Below `bound`, each number as likely.
  std::uint32_t below(std::uint32_t bound) {
    std::uint64_t product = std::uint64_t{next()} * bound;
    if (static_cast<std::uint32_t>(product) < bound) {
      const std::uint32_t unfair = (0U - bound) % bound;
      while (static_cast<std::uint32_t>(product) < unfair) product = std::uint64_t{next()} * bound;
    }
    return static_cast<std::uint32_t>(product >> 32U);
  }

 private:
  std::uint32_t next() {
    state_ += golden_gamma;
    return static_cast<std::uint32_t>(mixed(state_) >> 32U);
  }
  std::uint64_t state_;
};

}  // namespace

std::vector<std::uint32_t> shuffled_order(std::int64_t count, std::uint64_t seed,
                                          std::int64_t epoch) {
  ensure(count >= 0 && count <= std::numeric_limits<std::uint32_t>::max() && epoch >= 0,
         "an order of at most 2^32 - 1 examples");
  std::vector<std::uint32_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0U);
  draws from(seed, static_cast<std::uint64_t>(epoch));
  for (auto left = static_cast<std::uint32_t>(count); left > 1; --left)
    std::swap(order[left - 1], order[from.below(left)]);
  return order;
}

}  // namespace tandem::train
