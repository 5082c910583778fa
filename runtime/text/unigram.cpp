#include "runtime/text/unigram.hpp"

#include "runtime/text/utf8.hpp"

#include <algorithm>

namespace tandem::text {
namespace {

constexpr double unknown_penalty = 10;

// The best way to arrive at a place of the text.
struct arrival {
  double score = 0;
  std::uint32_t begin = UINT32_MAX;  // of the token that ends here; none yet
  token_id id = no_token;

  void offer(double s, std::size_t from, token_id token) {
    if (begin == UINT32_MAX || s > score) *this = {s, static_cast<std::uint32_t>(from), token};
  }
};

}  // namespace

void unigram::encode(std::string_view piece, std::vector<token_id>& out) const {
  if (piece.empty()) return;
  ensure(piece.size() < UINT32_MAX, "a piece of 4 GiB");
  std::vector<arrival> best(piece.size() + 1);
  const auto sum = [this](double a, double b) {
    return parts_.single_precision ? double{static_cast<float>(a) + static_cast<float>(b)} : a + b;
  };
  for (std::size_t at = 0; at < piece.size();) {
    const std::size_t character = utf8_length(piece[at]);
    bool single = false;
    byte_trie::node node = byte_trie::root;
    for (std::size_t end = at; end < piece.size();) {
      node = parts_.pieces.step(node, piece[end++]);
      if (node == byte_trie::nowhere) break;
      const token_id id = parts_.pieces.value(node);
      if (id == no_token) continue;
      best[end].offer(sum(best[at].score, parts_.scores[id]), at, id);
      single = single || end - at == character;
    }
    if (!single) {
      best[at + character].offer(sum(best[at].score, parts_.lowest_score - unknown_penalty), at,
                                 no_token);
    }
    at += character;
  }

  // From the end to the beginning, then turned round. Unknown neighbours become one.
  std::vector<text_range> cuts;
  for (std::size_t end = piece.size(); end > 0; end = best[end].begin) {
    const text_range cut{best[end].begin, end};
    const bool joins = parts_.fuse_unknown && best[end].id == no_token && !cuts.empty() &&
                       best[cuts.back().end].id == no_token && cuts.back().begin == end;
    if (joins) {
      cuts.back().begin = cut.begin;
    } else {
      cuts.push_back(cut);
    }
  }
  for (std::size_t i = cuts.size(); i-- > 0;) {
    const token_id id = best[cuts[i].end].id;
    if (id != no_token) {
      out.push_back(id);
    } else {
      emit_unknown(slice(piece, cuts[i]), out);
    }
  }
}

void unigram::emit_unknown(std::string_view text, std::vector<token_id>& out) const {
  const auto id_of = [this](char c) { return parts_.byte_ids[static_cast<unsigned char>(c)]; };
  if (parts_.byte_fallback &&
      std::none_of(text.begin(), text.end(), [&](char c) { return id_of(c) == no_token; })) {
    for (const char c : text) out.push_back(id_of(c));
  } else if (parts_.unknown) {
    out.push_back(*parts_.unknown);
  }
}

}  // namespace tandem::text
