#include "runtime/serve/output_text.hpp"

#include <utility>

namespace tandem::serve {

output_text::output_text(std::shared_ptr<const text::tokenizer> t, std::vector<std::string> stop,
                         bool include_stop, bool skip_special)
    : matcher_(std::move(stop), include_stop) {
  if (t != nullptr) detokenizer_.emplace(std::move(t), skip_special);
}

output_text::step output_text::add(token_id id, bool may_stop) {
  if (!detokenizer_) return {};
  const std::string text = detokenizer_->add(id);
  if (!may_stop) return {matcher_.pass(text), {}};
  stop_matcher::piece piece = matcher_.add(text);
  return {std::move(piece.text), std::move(piece.stop_string)};
}

std::string output_text::finish() {
  if (!detokenizer_) return {};
  // What the detokenizer still held may complete a stop string; then the text ends before it.
  stop_matcher::piece piece = matcher_.add(detokenizer_->finish());
  if (!piece.stop_string) piece.text += matcher_.finish();
  return std::move(piece.text);
}

}  // namespace tandem::serve
