// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011): a bijection of counters under a key. No state: the number for a position is a function of
// the position, whatever was drawn before it or not.
#pragma once

#include <array>
#include <cstdint>

namespace tandem::serve {

std::array<std::uint32_t, 4> philox_4x32(std::array<std::uint32_t, 4> counter,
                                         std::array<std::uint32_t, 2> key);

}  // namespace tandem::serve
