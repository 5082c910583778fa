// The workspace of draw.cu, for so many rows at once; it does not depend on how wide they are.
#pragma once

#include "kernels/draw_math.hpp"

#include <cstddef>
#include <cstdint>

namespace tandem::kernels::cuda {

inline constexpr int draw_rows = 64;
// A row is cut into pieces; wider rows than these hold are the host's.
inline constexpr int draw_piece = 2048;
inline constexpr int draw_pieces = 256;
// The nucleus' cut is narrowed from bin to bin of so many, so often.
inline constexpr int draw_bins = drawing::buckets;
inline constexpr int draw_rounds = 4;

// Where the cut is: among the logits with keys from `first` to `last` (drawing::key_of), of which
// the largest that make up `wanted` units are kept. All above are kept, none below.
struct draw_cut {
  std::uint32_t first;
  std::uint32_t last;
  std::uint64_t wanted;
};

struct draw_room {
  std::uint64_t peaks[draw_pieces];  // of each block
  std::uint64_t units[draw_pieces];  // of each piece: all, then those above the cut
  std::uint64_t masses[draw_rounds][draw_bins];
  draw_cut cuts[draw_rounds];       // after each round
  std::uint32_t ties[draw_pieces];  // of each piece: how many logits are the cut's
};

inline std::size_t draw_workspace() {
  return draw_rows * (sizeof(draw_room) + sizeof(std::int32_t)) + std::size_t{2} * 256;
}

}  // namespace tandem::kernels::cuda
