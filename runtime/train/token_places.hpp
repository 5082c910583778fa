// Which tokens of an encoded prompt lie before a byte of its text: those that end there or earlier.
#pragma once

#include "runtime/text/tokenizer.hpp"

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace tandem::train {

class token_places {
 public:
  explicit token_places(std::shared_ptr<const text::tokenizer> t) : tokenizer_(std::move(t)) {}

  // `ids` are the tokenizer's for `pieces`; `bytes` rise. For each, how many ids end at or before.
  std::vector<std::size_t> before(std::span<const text::prompt_piece> pieces,
                                  std::span<const text::token_id> ids,
                                  std::span<const std::size_t> bytes);
  // The two ways, for tests: adding up what each token stands for (nothing where that is not the
  // text, as with normalizers), and encoding the text up to the byte.
  std::optional<std::vector<std::size_t>> by_adding(std::span<const text::prompt_piece> pieces,
                                                    std::span<const text::token_id> ids,
                                                    std::span<const std::size_t> bytes);
  std::size_t by_encoding(std::span<const text::prompt_piece> pieces,
                          std::span<const text::token_id> ids, std::size_t byte);

 private:
  const std::string& bytes_of(text::token_id id);

  std::shared_ptr<const text::tokenizer> tokenizer_;
  std::unordered_map<text::token_id, std::string> bytes_;
};

}  // namespace tandem::train
