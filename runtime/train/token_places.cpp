#include "runtime/train/token_places.hpp"

#include <algorithm>

namespace tandem::train {

using text::prompt_piece;
using text::token_id;

const std::string& token_places::bytes_of(token_id id) {
  auto found = bytes_.find(id);
  if (found == bytes_.end()) found = bytes_.emplace(id, tokenizer_->token_bytes(id)).first;
  return found->second;
}

std::optional<std::vector<std::size_t>> token_places::by_adding(
    std::span<const prompt_piece> pieces, std::span<const token_id> ids,
    std::span<const std::size_t> bytes) {
  std::string text;
  for (const prompt_piece& piece : pieces) text += piece.text;
  std::vector<std::size_t> out;
  std::size_t at = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::string& own = bytes_of(ids[i]);
    if (own.empty() || text.compare(at, own.size(), own) != 0) return std::nullopt;
    at += own.size();
    while (out.size() < bytes.size() && bytes[out.size()] < at) out.push_back(i);
  }
  if (at != text.size()) return std::nullopt;
  out.resize(bytes.size(), ids.size());
  return out;
}

std::size_t token_places::by_encoding(std::span<const prompt_piece> pieces,
                                      std::span<const token_id> ids, std::size_t byte) {
  std::vector<prompt_piece> head;
  std::size_t size = 0;
  for (const prompt_piece& piece : pieces) {
    if (size >= byte) break;
    head.push_back({piece.text.substr(0, byte - size), piece.trusted});
    size += piece.text.size();
  }
  const std::vector<token_id> own = tokenizer_->encode_prompt(head);
  const auto differ = std::mismatch(own.begin(), own.end(), ids.begin(), ids.end()).first;
  auto same = static_cast<std::size_t>(differ - own.begin());
  // What is left of the head is cut otherwise in the whole: those that still fit its bytes.
  std::size_t left = 0;
  for (std::size_t i = same; i < own.size(); ++i) left += bytes_of(own[i]).size();
  while (same < ids.size() && left > 0 && bytes_of(ids[same]).size() <= left)
    left -= bytes_of(ids[same++]).size();
  return same;
}

std::vector<std::size_t> token_places::before(std::span<const prompt_piece> pieces,
                                              std::span<const token_id> ids,
                                              std::span<const std::size_t> bytes) {
  if (auto quick = by_adding(pieces, ids, bytes)) return std::move(*quick);
  std::vector<std::size_t> out;
  for (const std::size_t byte : bytes) {
    const std::size_t count = by_encoding(pieces, ids, byte);
    out.push_back(out.empty() ? count : std::max(count, out.back()));
  }
  return out;
}

}  // namespace tandem::train
