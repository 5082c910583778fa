#include "runtime/text/tokenizer_data.hpp"

namespace tandem::text {

struct detokenizer::state {
  decoding under_way;
};

detokenizer::detokenizer(std::shared_ptr<const tokenizer> t, bool skip_special)
    : tokenizer_(std::move(t)), skip_special_(skip_special) {
  ensure(tokenizer_ != nullptr, "a detokenizer without a tokenizer");
  state_ = std::make_unique<state>(state{decoding(tokenizer_->data_->decoder, true)});
}

detokenizer::detokenizer(const detokenizer& o)
    : tokenizer_(o.tokenizer_),
      skip_special_(o.skip_special_),
      state_(o.state_ ? std::make_unique<state>(*o.state_) : nullptr) {}

detokenizer& detokenizer::operator=(const detokenizer& o) {
  if (this != &o) *this = detokenizer(o);
  return *this;
}

detokenizer::detokenizer(detokenizer&&) noexcept = default;
detokenizer& detokenizer::operator=(detokenizer&&) noexcept = default;
detokenizer::~detokenizer() = default;

std::string detokenizer::add(token_id id) {
  const tokenizer::data& data = *tokenizer_->data_;
  if (!data.has(id) || (skip_special_ && tokenizer_->is_special(id))) return {};
  data.feed(state_->under_way, id);
  return state_->under_way.take();
}

std::string detokenizer::finish() {
  state_->under_way.finish();
  return state_->under_way.take();
}

}  // namespace tandem::text
