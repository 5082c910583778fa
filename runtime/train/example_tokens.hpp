// One checked line of training data as token ids and targets.
#pragma once

#include "runtime/result.hpp"
#include "runtime/train/dataset.hpp"
#include "runtime/train/example_form.hpp"
#include "runtime/train/token_places.hpp"

#include <string_view>
#include <vector>

namespace tandem::train {

class example_encoder {
 public:
  explicit example_encoder(const reader& how);
  // Refused with the field at fault as `param`: what the template refuses; fewer than two tokens.
  // Of an example with more than `most_tokens` no targets need be found.
  result<example> encode(const example_form& form, std::size_t most_tokens);

 private:
  result<example> encode(const chat_form& chat);
  result<example> encode(const pair_form& pair);
  result<example> encode(const text_form& text);
  // Text that goes on after other text: without what the tokenizer puts at a text's beginning.
  std::vector<token_id> encode_after(std::string_view text) const;

  const reader& how_;
  token_places places_;
  std::size_t most_tokens_ = 0;      // of the example at hand
  bool begins_differently_ = false;  // the tokenizer marks a text's beginning
};

}  // namespace tandem::train
