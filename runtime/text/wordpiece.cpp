#include "runtime/text/wordpiece.hpp"

#include "runtime/text/utf8.hpp"

namespace tandem::text {

void wordpiece::encode(std::string_view piece, std::vector<token_id>& out) const {
  std::size_t characters = 0;
  for (std::size_t at = 0; at < piece.size() && characters <= parts_.word_characters_max;
       ++characters) {
    at += utf8_length(piece[at]);
  }
  const std::size_t before = out.size();
  if (characters <= parts_.word_characters_max && cut(piece, out)) return;
  out.resize(before);
  if (parts_.unknown) out.push_back(*parts_.unknown);
}

bool wordpiece::cut(std::string_view word, std::vector<token_id>& out) const {
  for (std::size_t at = 0; at < word.size();) {
    const byte_trie& tokens = at == 0 ? parts_.beginnings : parts_.continuations;
    token_id longest = no_token;
    std::size_t longest_end = at;
    byte_trie::node node = byte_trie::root;
    for (std::size_t end = at; end < word.size();) {
      node = tokens.step(node, word[end++]);
      if (node == byte_trie::nowhere) break;
      if (tokens.value(node) == no_token) continue;
      longest = tokens.value(node);
      longest_end = end;
    }
    if (longest == no_token) return false;
    out.push_back(longest);
    at = longest_end;
  }
  return true;
}

}  // namespace tandem::text
