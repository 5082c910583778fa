#include "runtime/text/added_tokens.hpp"

#include <algorithm>

namespace tandem::text {
namespace {

bool stands_alone(std::string_view text, text_range match) {
  if (match.begin > 0 && is_word(character_before(text, match.begin))) return false;
  std::size_t after = match.end;
  return after == text.size() || !is_word(next_character(text, after));
}

std::size_t left_white_space(std::string_view text, std::size_t end) {
  while (end > 0) {
    const char32_t c = character_before(text, end);
    if (!is_white_space(c)) break;
    end -= c < 0x80 ? 1 : c < 0x800 ? 2 : 3;
  }
  return end;
}

std::size_t right_white_space(std::string_view text, std::size_t begin) {
  for (std::size_t next = begin; begin < text.size(); begin = next) {
    if (!is_white_space(next_character(text, next))) break;
  }
  return begin;
}

}  // namespace

void added_token_finder::add(const added_token& token, std::string_view spelling) {
  trie_.insert(spelling, static_cast<token_id>(tokens_.size()));
  tokens_.push_back(
      {token, spelling.ends_with(token.content) ? spelling.size() - token.content.size() : 0});
}

const added_token* added_token_finder::longest_at(
    std::string_view text, std::size_t at, std::size_t& end,
    const std::function<bool(text_range)>& may_be_special) const {
  const added_token* found = nullptr;
  byte_trie::node node = byte_trie::root;
  for (std::size_t next = at; next < text.size();) {
    node = trie_.step(node, text[next++]);
    if (node == byte_trie::nowhere) break;
    if (trie_.value(node) == no_token) continue;
    const auto& [token, lead] = tokens_[static_cast<std::size_t>(trie_.value(node))];
    if (token.special && !may_be_special({at + lead, next})) continue;
    found = &token;
    end = next;
  }
  return found;
}

std::vector<added_token_finder::part> added_token_finder::cut(
    std::string_view text, const std::function<bool(text_range)>& may_be_special) const {
  std::vector<part> parts;
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    if (!trie_.begins(text[at])) {
      ++at;
      continue;
    }
    std::size_t end = at;
    const added_token* token = longest_at(text, at, end, may_be_special);
    if (token == nullptr) {
      ++at;
      continue;
    }
    const text_range match{at, end};
    at = end;
    if (token->single_word && !stands_alone(text, match)) continue;
    const std::size_t begin =
        token->lstrip ? std::max(left_white_space(text, match.begin), done) : match.begin;
    const std::size_t stop = token->rstrip ? right_white_space(text, match.end) : match.end;
    if (begin > done) parts.push_back({{done, begin}, no_token});
    parts.push_back({{begin, stop}, token->id});
    done = std::max(done, stop);
  }
  if (done < text.size()) parts.push_back({{done, text.size()}, no_token});
  return parts;
}

}  // namespace tandem::text
