// Running a tokenizer: cut out added tokens, normalize, cut again, split into pieces, encode each.
// The readers are tokenizer_json.cpp and tokenizer_gguf.cpp.
#include "runtime/text/tokenizer.hpp"

#include "runtime/text/byte_level.hpp"
#include "runtime/text/tokenizer_data.hpp"

#include <algorithm>

namespace tandem::text {
namespace {

// Where special tokens may stand: everywhere, nowhere, or inside these ranges (sorted, apart).
struct trust {
  bool everywhere = false;
  std::vector<text_range> ranges;

  bool covers(text_range r) const {
    if (everywhere) return true;
    const auto after = std::upper_bound(ranges.begin(), ranges.end(), r.begin,
                                        [](std::size_t at, text_range x) { return at < x.begin; });
    return after != ranges.begin() && r.end <= std::prev(after)->end;
  }
};

class encoding {
 public:
  encoding(const tokenizer::data& d, const trust& t, std::vector<token_id>& out)
      : data_(d), trust_(t), out_(out) {}

  void run(std::string_view text) {
    if (data_.tokens.empty()) return ordinary(text, {0, text.size()});
    const auto parts = data_.tokens.cut(text, [this](text_range r) { return trust_.covers(r); });
    for (const auto& part : parts) {
      if (part.id != no_token) {
        out_.push_back(part.id);
      } else {
        ordinary(text, part.range);
      }
    }
  }

 private:
  void ordinary(std::string_view text, text_range range) {
    if (range.size() == 0) return;
    const bool at_start = range.begin == 0;
    if (data_.normalizer.empty() && data_.normalized_tokens.empty()) {
      return pieces(slice(text, range), at_start);
    }
    normalized_text normal{std::string(slice(text, range)), marks(range), at_start};
    data_.normalizer.run(normal);
    if (data_.normalized_tokens.empty()) return pieces(normal.text, normal.at_start);
    const auto parts = data_.normalized_tokens.cut(normal.text, [&](text_range r) {
      if (normal.trusted.empty()) return trust_.covers(range);
      return std::find(normal.trusted.begin() + static_cast<std::ptrdiff_t>(r.begin),
                       normal.trusted.begin() + static_cast<std::ptrdiff_t>(r.end),
                       0) == normal.trusted.begin() + static_cast<std::ptrdiff_t>(r.end);
    });
    for (const auto& part : parts) {
      if (part.id != no_token) {
        out_.push_back(part.id);
      } else {
        pieces(slice(normal.text, part.range), normal.at_start && part.range.begin == 0);
      }
    }
  }

  // One mark a byte where trust is mixed and normalized text is searched for special tokens.
  std::vector<char> marks(text_range range) const {
    if (!data_.special_in_normalized || trust_.everywhere || trust_.ranges.empty()) return {};
    std::vector<char> out(range.size(), 0);
    for (const text_range r : trust_.ranges) {
      const std::size_t begin = std::max(r.begin, range.begin);
      const std::size_t end = std::min(r.end, range.end);
      for (std::size_t at = begin; at < end; ++at) out[at - range.begin] = 1;
    }
    return out;
  }

  void pieces(std::string_view text, bool at_start) {
    if (text.empty()) return;
    if (data_.pre_tokenizer.empty()) return data_.model->encode(text, out_);
    split_text split{text, {{0, text.size()}}, at_start, {}};
    data_.pre_tokenizer.run(split);
    for (const text_range piece : split.pieces) {
      if (piece.size() > 0) data_.model->encode(slice(split.text, piece), out_);
    }
  }

  const tokenizer::data& data_;
  const trust& trust_;
  std::vector<token_id>& out_;
};

}  // namespace

void tokenizer::data::add_spelling(std::string_view spelling, token_id id) {
  ensure(id >= 0 && id <= id_max, "a token id out of range");
  const auto at = static_cast<std::size_t>(id);
  if (at >= spellings.size()) {
    spellings.resize(at + 1);
    special.resize(at + 1, 0);
    added.resize(at + 1, 0);
  }
  spellings[at] = spelling;
  ids.insert(spelling, id);
}

void tokenizer::data::add_token(const added_token& token) {
  if (token.content.empty()) return;
  add_spelling(token.content, token.id);
  added[static_cast<std::size_t>(token.id)] = 1;
  special[static_cast<std::size_t>(token.id)] = token.special ? 1 : 0;
  if (!token.normalized) return tokens.add(token, token.content);
  normalized_text normal{token.content, {}, true};
  normalizer.run(normal);
  normalized_tokens.add(token, normal.text);
  special_in_normalized = special_in_normalized || token.special;
}

void tokenizer::data::feed(decoding& d, token_id id) const {
  const auto at = static_cast<std::size_t>(id);
  d.add(spellings[at], added_are_literal && added[at] != 0);
}

tokenizer::tokenizer(std::unique_ptr<data> d) : data_(std::move(d)) {
  ensure(data_ && data_->model, "a tokenizer without a model");
}
tokenizer::~tokenizer() = default;

std::vector<token_id> tokenizer::encode(std::string_view text,
                                        const encode_options& options) const {
  std::string storage;
  std::vector<token_id> out;
  if (options.add_special_tokens) out = data_->prefix;
  const trust t{options.parse_special, {}};
  encoding(*data_, t, out).run(valid_utf8(text, storage));
  if (options.add_special_tokens) out.insert(out.end(), data_->suffix.begin(), data_->suffix.end());
  return out;
}

std::vector<token_id> tokenizer::encode_prompt(std::span<const prompt_piece> pieces) const {
  std::string text;
  std::string storage;
  trust t;
  for (const prompt_piece& piece : pieces) {
    const std::size_t begin = text.size();
    text += valid_utf8(piece.text, storage);
    if (!piece.trusted || text.size() == begin) continue;
    // Trusted neighbours are one: a template may print a token in two parts.
    if (!t.ranges.empty() && t.ranges.back().end == begin) {
      t.ranges.back().end = text.size();
    } else {
      t.ranges.push_back({begin, text.size()});
    }
  }
  std::vector<token_id> out;
  encoding(*data_, t, out).run(text);
  return out;
}

std::string tokenizer::decode(std::span<const token_id> ids, bool skip_special) const {
  decoding d(data_->decoder, false);
  for (const token_id id : ids) {
    if (data_->has(id) && !(skip_special && is_special(id))) data_->feed(d, id);
  }
  d.finish();
  return d.take();
}

std::string tokenizer::token_bytes(token_id id) const {
  if (!data_->has(id)) return {};
  const std::string& spelling = data_->spellings[static_cast<std::size_t>(id)];
  const bool is_added = data_->added[static_cast<std::size_t>(id)] != 0;
  if (data_->decoder.reads_bytes()) {
    if (is_added && data_->added_are_literal) return spelling;
    return from_byte_level(spelling).value_or(spelling);
  }
  const std::optional<char> byte =
      data_->decoder.has_byte_fallback() && !is_added ? byte_of_spelling(spelling) : std::nullopt;
  if (byte) return std::string(1, *byte);
  // Between two letters, less what those two give alone.
  const auto between = [this](std::optional<token_id> middle) {
    decoding d(data_->decoder, false);
    d.add("a", false);
    if (middle) data_->feed(d, *middle);
    d.add("a", false);
    d.finish();
    return d.take();
  };
  const std::string without = between(std::nullopt);
  const std::string with = between(id);
  if (with.size() < without.size() || without.empty()) return {};
  return with.substr(1, with.size() - without.size());
}

std::string_view tokenizer::token_spelling(token_id id) const {
  if (!data_->has(id)) return {};
  return data_->spellings[static_cast<std::size_t>(id)];
}

std::size_t tokenizer::vocabulary_size() const { return data_->spellings.size(); }

std::size_t tokenizer::longest_token_bytes() const {
  std::call_once(data_->longest_once, [this] {
    for (std::size_t id = 0; id < vocabulary_size(); ++id) {
      data_->longest = std::max(data_->longest, token_bytes(static_cast<token_id>(id)).size());
    }
  });
  return data_->longest;
}

bool tokenizer::is_special(token_id id) const {
  return data_->has(id) && data_->special[static_cast<std::size_t>(id)] != 0;
}

std::optional<token_id> tokenizer::id_of(std::string_view spelling) const {
  const token_id id = data_->ids.find(spelling);
  if (id == no_token) return std::nullopt;
  return id;
}

std::optional<token_id> tokenizer::bos() const { return data_->bos; }
std::optional<token_id> tokenizer::eos() const { return data_->eos; }
std::optional<token_id> tokenizer::unknown() const { return data_->unknown; }

}  // namespace tandem::text
