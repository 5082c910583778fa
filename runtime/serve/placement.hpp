// Which device a new request goes to, as far as load and memory of prompts decide.
#pragma once

#include <algorithm>

namespace tandem::serve {

// What a known beginning of the prompt is worth: so many tokens that need not be read again weigh
// as much as one more sequence beside which it runs, up to eight of these. So equal beginnings meet
// where they lie, and a device that everybody's beginning lies on is not buried under them.
inline constexpr int tokens_a_sequence = 64;
inline constexpr int sequences_outweighed_max = 8;

// The least is the best place. A device without a free place makes it wait: nothing outweighs that.
inline int placing_cost(int sequences, int places, int known_tokens) {
  const int credit = sequences >= places
                         ? 0
                         : std::min(known_tokens / tokens_a_sequence, sequences_outweighed_max);
  return sequences - credit;
}

}  // namespace tandem::serve
