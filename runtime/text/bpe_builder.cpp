#include "runtime/text/bpe_builder.hpp"

#include "runtime/text/byte_level.hpp"
#include "runtime/text/utf8.hpp"

#include <fmt/format.h>
#include <algorithm>

namespace tandem::text {
namespace {

constexpr std::string_view space = "\xE2\x96\x81";

bpe::parts begin_parts(const tokenizer::data& vocabulary, const bpe_options& options) {
  bpe::parts p;
  p.reads_bytes = options.reads_bytes;
  p.byte_fallback = options.byte_fallback;
  p.fuse_unknown = options.fuse_unknown;
  p.ignore_merges = options.ignore_merges;
  p.unknown = options.unknown;
  p.continuing_prefix = options.continuing_prefix;
  p.end_suffix = options.end_suffix;
  p.vocabulary_size = vocabulary.spellings.size();
  std::size_t bytes = 0;
  for (const std::string& spelling : vocabulary.spellings) bytes += spelling.size();
  p.pieces.reserve(vocabulary.spellings.size(), bytes);
  for (std::size_t i = 0; i < vocabulary.spellings.size(); ++i) {
    const std::string& spelling = vocabulary.spellings[i];
    const auto id = static_cast<token_id>(i);
    if (spelling.empty() || options.excluded.contains(id)) continue;
    if (!options.reads_bytes) {
      p.pieces.insert(spelling, id);
    } else if (const auto raw = from_byte_level(spelling)) {
      p.pieces.insert(*raw, id);
    }
  }
  if (options.reads_bytes) {
    for (unsigned byte = 0; byte < 256; ++byte) {
      p.byte_ids[byte] =
          p.pieces.find(std::string(1, static_cast<char>(static_cast<unsigned char>(byte))));
    }
  } else {
    p.byte_ids = byte_token_ids(vocabulary.ids);
  }
  return p;
}

// Where a text may be cut without crossing a token; see bpe::parts::space.
void find_safe_cuts(const tokenizer::data& vocabulary, bpe::parts& p) {
  if (p.reads_bytes || !p.continuing_prefix.empty() || !p.end_suffix.empty()) return;
  if (p.pieces.find(space) == no_token) return;
  for (const std::string& spelling : vocabulary.spellings) {
    for (std::size_t at = 0; (at = spelling.find(space, at)) != std::string::npos;
         at += space.size()) {
      if (at > 0) p.before_space.insert(character_before(spelling, at));
    }
  }
  p.space = space;
}

}  // namespace

std::array<token_id, 256> byte_token_ids(const string_table& ids) {
  std::array<token_id, 256> out{};
  for (unsigned byte = 0; byte < 256; ++byte) out[byte] = ids.find(fmt::format("<0x{:02X}>", byte));
  return out;
}

result<std::unique_ptr<const piece_model>> build_bpe(
    const tokenizer::data& vocabulary, const bpe_options& options,
    const std::vector<std::pair<std::string_view, std::string_view>>& merges) {
  bpe::parts p = begin_parts(vocabulary, options);
  p.merges.reserve(merges.size());
  std::string joined;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    joined = left;
    if (right.size() < options.continuing_prefix.size()) {
      return error{errc::bad_file, fmt::format("merge {} is shorter than its prefix", rank), {}};
    }
    joined += right.substr(options.continuing_prefix.size());
    const token_id left_id = vocabulary.ids.find(left);
    const token_id right_id = vocabulary.ids.find(right);
    const token_id id = vocabulary.ids.find(joined);
    if (left_id == no_token || right_id == no_token || id == no_token) {
      return error{errc::bad_file,
                   fmt::format("merge {} of '{}' and '{}': one of them or '{}' is not "
                               "in the vocabulary",
                               rank, left, right, joined),
                   {}};
    }
    p.merges.insert(left_id, right_id, {static_cast<std::uint32_t>(rank), id});
    if (options.excluded.contains(id)) p.control_parts.try_emplace(id, left_id, right_id);
  }
  find_safe_cuts(vocabulary, p);
  return std::unique_ptr<const piece_model>(std::make_unique<bpe>(std::move(p)));
}

std::unique_ptr<const piece_model> build_bpe_by_score(const tokenizer::data& vocabulary,
                                                      const bpe_options& options,
                                                      const std::vector<double>& scores) {
  bpe::parts p = begin_parts(vocabulary, options);
  p.merge_by_text = true;
  std::vector<token_id> order(scores.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<token_id>(i);
  const auto score = [&](token_id id) { return scores[static_cast<std::size_t>(id)]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](token_id a, token_id b) { return score(a) > score(b); });
  p.ranks.resize(vocabulary.spellings.size());
  std::uint32_t rank = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && score(order[i]) < score(order[i - 1])) ++rank;
    p.ranks[static_cast<std::size_t>(order[i])] = rank;
  }
  find_safe_cuts(vocabulary, p);
  return std::make_unique<bpe>(std::move(p));
}

}  // namespace tandem::text
