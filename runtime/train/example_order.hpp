// The order in which an epoch reads its examples: a permutation that seed and epoch alone decide.
// Its bits are fixed for ever (a run that is taken up by a later build reads on in the same order),
// so generator and shuffle are ours and not the standard library's.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem::train {

// Fisher and Yates' shuffle of 0…count-1, drawn from SplitMix64 (Steele, Lea & Flood 2014) begun at
// a mix of seed and epoch; draws below a bound by Lemire's method (2019, arXiv:1805.10941), which
// favours none. count is below 2^32.
std::vector<std::uint32_t> shuffled_order(std::int64_t count, std::uint64_t seed,
                                          std::int64_t epoch);

}  // namespace tandem::train
