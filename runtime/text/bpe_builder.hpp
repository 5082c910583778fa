// Makes a BPE model out of a vocabulary and its merges, as either kind of file tells them.
#pragma once

#include "runtime/text/bpe.hpp"
#include "runtime/text/tokenizer_data.hpp"

#include <memory>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace tandem::text {

struct bpe_options {
  bool reads_bytes = false;
  bool byte_fallback = false;
  bool fuse_unknown = false;
  bool ignore_merges = false;
  std::optional<token_id> unknown;
  std::string continuing_prefix;
  std::string end_suffix;
  std::unordered_set<token_id> excluded;  // what text must not become: control tokens
};

// `vocabulary` holds the spellings by id. A merge of what is not in it is an error.
result<std::unique_ptr<const piece_model>> build_bpe(
    const tokenizer::data& vocabulary, const bpe_options& options,
    const std::vector<std::pair<std::string_view, std::string_view>>& merges);

// SentencePiece's: no merges; the pair whose text has the best score goes first.
std::unique_ptr<const piece_model> build_bpe_by_score(const tokenizer::data& vocabulary,
                                                      const bpe_options& options,
                                                      const std::vector<double>& scores);

// <0x00> to <0xFF>; no_token where there is none.
std::array<token_id, 256> byte_token_ids(const string_table& ids);

}  // namespace tandem::text
