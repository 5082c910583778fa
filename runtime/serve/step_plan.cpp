#include "runtime/serve/step_plan.hpp"

namespace tandem::serve {

bool fill_drawn(step_plan& plan, const std::vector<sampled_token>& drawn) {
  auto next = drawn.begin();
  for (auto& chunk : plan.chunks)
    for (auto& token : chunk.tokens) {
      if (token != drawn_before) continue;
      while (next != drawn.end() && next->slot != chunk.slot) ++next;
      if (next == drawn.end()) return false;
      token = next->token.id;
    }
  return true;
}

}  // namespace tandem::serve
