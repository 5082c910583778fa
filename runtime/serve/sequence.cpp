#include "runtime/serve/sequence.hpp"

#include "kernels/ensure.hpp"

#include <algorithm>
#include <array>

namespace tandem::serve {

std::span<const memory::block_hash> sequence::hashes(int count, std::uint64_t weights_version) {
  ensure(count * positions_per_block <= length(), "hashing a block that is not full");
  if (chain_version != weights_version) chain.clear();
  chain_version = weights_version;
  std::array<token_id, positions_per_block> block{};
  while (static_cast<int>(chain.size()) < count) {
    const int first = static_cast<int>(chain.size()) * positions_per_block;
    for (int i = 0; i < positions_per_block; ++i) {
      block[static_cast<std::size_t>(i)] = token(first + i);
    }
    const memory::block_hash before =
        chain.empty() ? memory::hash_seed(weights_version, request().variant, request().cache_salt)
                      : chain.back();
    chain.push_back(memory::hash_next(before, block));
  }
  return std::span(chain).first(static_cast<std::size_t>(count));
}

bool follows(const sequence& s, const sequence& leader) {
  // A block's hash covers all before it: one comparison tells of all four.
  if (s.announced > 0 || !s.publishes || !leader.publishes || !s.may_match()) return false;
  const auto last = static_cast<std::size_t>(s.computed / positions_per_block) + 3;
  return last < s.chain.size() && last < leader.chain.size() && s.chain[last] == leader.chain[last];
}

bool is_end(const stop_conditions& stops, token_id id) {
  const auto holds = [id](const std::vector<token_id>& ids) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  return (!stops.ignore_eos && holds(stops.eos_ids)) || holds(stops.stop_token_ids);
}

std::vector<token_id> banned_ids(const sequence& s, int drawn) {
  const stop_conditions& stops = s.request().stops;
  std::vector<token_id> banned;
  if (static_cast<int>(s.generated.size()) + drawn >= stops.min_tokens) return banned;
  if (!stops.ignore_eos) banned = stops.eos_ids;
  banned.insert(banned.end(), stops.stop_token_ids.begin(), stops.stop_token_ids.end());
  return banned;
}

void release_blocks(sequence& s, memory::kv_blocks& book) {
  for (auto block = s.blocks.rbegin(); block != s.blocks.rend(); ++block) book.release(*block);
  s.blocks.clear();
  s.computed = s.announced = s.published = 0;
  s.publishes = false;
}

}  // namespace tandem::serve
