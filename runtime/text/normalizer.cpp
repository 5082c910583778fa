#include "runtime/text/normalizer.hpp"

#include "runtime/text/byte_level.hpp"

#include <unicode/brkiter.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <algorithm>

namespace tandem::text {
namespace {

// Writes the text behind a step, piece by piece: which part of the input became what.
class rewriter {
 public:
  explicit rewriter(normalized_text& t)
      : target_(t), in_(std::move(t.text)), trusted_in_(std::move(t.trusted)) {
    target_.text.clear();
    target_.trusted.clear();
    target_.text.reserve(in_.size() + in_.size() / 8);
  }

  std::string_view in() const { return in_; }

  void keep(std::size_t begin, std::size_t end) {
    note_start(begin, end - begin);
    target_.text.append(in_, begin, end - begin);
    if (!trusted_in_.empty()) {
      target_.trusted.insert(target_.trusted.end(), trusted_in_.begin() + signed_(begin),
                             trusted_in_.begin() + signed_(end));
    }
  }
  // Input [begin, end) became `text`, which is trusted when all of it was.
  void put(std::size_t begin, std::size_t end, std::string_view text) {
    note_start(begin, text.size());
    target_.text += text;
    if (trusted_in_.empty()) return;
    const bool all =
        std::all_of(trusted_in_.begin() + signed_(begin), trusted_in_.begin() + signed_(end),
                    [](char mark) { return mark != 0; });
    target_.trusted.insert(target_.trusted.end(), text.size(), all ? 1 : 0);
  }
  void put(std::size_t begin, std::size_t end, char32_t c) {
    character_.clear();
    append_utf8(character_, c);
    put(begin, end, character_);
  }

 private:
  // The first text written: does it come from where the input begins?
  void note_start(std::size_t begin, std::size_t written) {
    if (target_.text.empty() && written > 0 && begin > 0) target_.at_start = false;
  }
  static std::ptrdiff_t signed_(std::size_t n) { return static_cast<std::ptrdiff_t>(n); }

  normalized_text& target_;
  std::string in_;
  std::vector<char> trusted_in_;
  std::string character_;
};

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

const icu::Normalizer2& instance(unicode_form form) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* found = nullptr;
  switch (form) {
    case unicode_form::nfc:
      found = icu::Normalizer2::getNFCInstance(status);
      break;
    case unicode_form::nfd:
      found = icu::Normalizer2::getNFDInstance(status);
      break;
    case unicode_form::nfkc:
      found = icu::Normalizer2::getNFKCInstance(status);
      break;
    case unicode_form::nfkd:
      found = icu::Normalizer2::getNFKDInstance(status);
      break;
  }
  ensure(found != nullptr && U_SUCCESS(status), "ICU has no data for Unicode normalization");
  return *found;
}

// Segment by segment between places where characters cannot change each other.
void apply(const unicode_step& step, normalized_text& t) {
  if (is_ascii(t.text)) return;
  const icu::Normalizer2& form = instance(step.form);
  rewriter out(t);
  const std::string_view in = out.in();
  std::string normal;
  for (std::size_t begin = 0; begin < in.size();) {
    std::size_t end = begin;
    bool ascii = next_character(in, end) < 0x80;
    for (std::size_t next = end; next < in.size(); end = next) {
      const char32_t c = next_character(in, next);
      // ASCII is never changed by what stands before it; a mark joins the run it follows.
      if (c >= 0x80 ? form.hasBoundaryBefore(static_cast<UChar32>(c)) : !ascii) break;
      ascii = ascii && c < 0x80;
    }
    const std::string_view segment = in.substr(begin, end - begin);
    if (ascii) {
      out.keep(begin, end);
    } else {
      UErrorCode status = U_ZERO_ERROR;
      icu::StringByteSink<std::string> sink(&normal);
      normal.clear();
      form.normalizeUTF8(
          0, icu::StringPiece(segment.data(), static_cast<std::int32_t>(segment.size())), sink,
          nullptr, status);
      ensure(U_SUCCESS(status), "ICU could not normalize valid UTF-8");
      if (normal == segment) {
        out.keep(begin, end);
      } else {
        out.put(begin, end, normal);
      }
    }
    begin = end;
  }
}

// One character at a time: `f` returns false when it did not handle the character itself.
template <class F>
void each_character(normalized_text& t, F f) {
  rewriter out(t);
  const std::string_view in = out.in();
  for (std::size_t at = 0; at < in.size();) {
    const std::size_t begin = at;
    const char32_t c = next_character(in, at);
    if (!f(out, begin, at, c)) out.keep(begin, at);
  }
}

void lower(rewriter& out, std::size_t begin, std::size_t end, char32_t c) {
  if (c == 0x130) {  // the one letter whose small form is two characters
    out.put(begin, end, "i\xCC\x87");
  } else {
    out.put(begin, end, to_lower(c));
  }
}

void apply(const lowercase_step&, normalized_text& t) {
  each_character(t, [](rewriter& out, std::size_t begin, std::size_t end, char32_t c) {
    lower(out, begin, end, c);
    return true;
  });
}

void apply(const strip_step& step, normalized_text& t) {
  std::size_t begin = 0;
  std::size_t end = t.text.size();
  for (std::size_t next = 0; step.left && begin < end; begin = next) {
    if (!is_white_space(next_character(t.text, next))) break;
  }
  while (step.right && end > begin) {
    const char32_t c = character_before(t.text, end);
    if (!is_white_space(c)) break;
    std::string bytes;
    append_utf8(bytes, c);
    end -= bytes.size();
  }
  if (begin == 0 && end == t.text.size()) return;
  rewriter out(t);
  out.keep(begin, end);
}

void apply(const strip_accents_step&, normalized_text& t) {
  each_character(t, [](rewriter&, std::size_t, std::size_t, char32_t c) { return is_mark(c); });
}

void apply(const nmt_step&, normalized_text& t) {
  each_character(t, [](rewriter& out, std::size_t begin, std::size_t end, char32_t c) {
    const bool dropped = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
                         c == 0x8F || c == 0x9F;
    const bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                       (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                       c == 0xFEFF || c == 0xFFFD;
    if (space) out.put(begin, end, " ");
    return dropped || space;
  });
}

void apply(const prepend_step& step, normalized_text& t) {
  if (t.text.empty()) return;
  t.text.insert(0, step.text);
  // What we put there is ours: as trusted as the character it stands before.
  if (!t.trusted.empty()) t.trusted.insert(t.trusted.begin(), step.text.size(), t.trusted.front());
}

void apply(const replace_step& step, normalized_text& t) {
  std::vector<text_range> found;
  if (step.pattern) {
    step.pattern->find_all(t.text, found);
  } else if (!step.literal.empty()) {
    for (std::size_t at = 0; (at = t.text.find(step.literal, at)) != std::string::npos;) {
      found.push_back({at, at + step.literal.size()});
      at += step.literal.size();
    }
  }
  if (found.empty()) return;
  rewriter out(t);
  std::size_t done = 0;
  for (const text_range match : found) {
    out.keep(done, match.begin);
    out.put(match.begin, match.end, step.content);
    done = match.end;
  }
  out.keep(done, out.in().size());
}

bool is_ideograph(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

// Control characters, formats and private use; unassigned ones stay.
bool is_other(char32_t c) {
  if (c == '\t' || c == '\n' || c == '\r') return false;
  constexpr std::uint32_t other = U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK;
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & other) != 0;
}

void apply(const bert_step& step, normalized_text& t) {
  if (step.clean_text) {
    each_character(t, [](rewriter& out, std::size_t begin, std::size_t end, char32_t c) {
      if (c == 0 || c == 0xFFFD || is_other(c)) return true;
      if (!is_white_space(c)) return false;
      out.put(begin, end, " ");
      return true;
    });
  }
  if (step.space_around_ideographs) {
    each_character(t, [](rewriter& out, std::size_t begin, std::size_t end, char32_t c) {
      if (!is_ideograph(c)) return false;
      std::string spaced = " ";
      append_utf8(spaced, c);
      spaced += ' ';
      out.put(begin, end, spaced);
      return true;
    });
  }
  if (step.strip_accents) {
    apply(unicode_step{unicode_form::nfd}, t);
    each_character(
        t, [](rewriter&, std::size_t, std::size_t, char32_t c) { return is_nonspacing_mark(c); });
  }
  if (step.lowercase) apply(lowercase_step{}, t);
}

// The ends of user-perceived characters.
std::vector<std::size_t> grapheme_ends(std::string_view text) {
  UErrorCode status = U_ZERO_ERROR;
  const std::unique_ptr<icu::BreakIterator> breaks(
      icu::BreakIterator::createCharacterInstance(icu::Locale::getRoot(), status));
  UText view = UTEXT_INITIALIZER;
  utext_openUTF8(&view, text.data(), static_cast<std::int64_t>(text.size()), &status);
  ensure(U_SUCCESS(status) && breaks, "ICU has no data for character breaks");
  breaks->setText(&view, status);
  std::vector<std::size_t> ends;
  for (std::int32_t at = breaks->next(); at != icu::BreakIterator::DONE; at = breaks->next()) {
    ends.push_back(static_cast<std::size_t>(at));
  }
  utext_close(&view);
  return ends;
}

void apply_longest(const charsmap& map, normalized_text& t) {
  rewriter out(t);
  const std::string_view in = out.in();
  for (std::size_t at = 0; at < in.size();) {
    const auto found = map.longest(in.substr(at));
    const std::size_t end = at + (found ? found->length : utf8_length(in[at]));
    if (found) {
      out.put(at, end, found->text);
    } else {
      out.keep(at, end);
    }
    at = end;
  }
}

// As Hugging Face's library reads the map: a whole grapheme of under six bytes by the shortest
// entry that begins it, else each of its characters.
void apply(const charsmap_step& step, normalized_text& t) {
  if (t.text.empty()) return;
  if (step.longest) return apply_longest(step.map, t);
  const std::vector<std::size_t> ends = grapheme_ends(t.text);
  rewriter out(t);
  const std::string_view in = out.in();
  std::size_t begin = 0;
  for (const std::size_t end : ends) {
    const std::string_view grapheme = in.substr(begin, end - begin);
    const auto whole = grapheme.size() < 6 ? step.map.shortest(grapheme) : std::nullopt;
    if (whole) out.put(begin, end, whole->text);
    for (std::size_t at = begin; !whole && at < end;) {
      const std::size_t next = at + utf8_length(in[at]);
      const auto one = step.map.shortest(in.substr(at, next - at));
      if (one) {
        out.put(at, next, one->text);
      } else {
        out.keep(at, next);
      }
      at = next;
    }
    begin = end;
  }
}

void apply(const byte_level_step&, normalized_text& t) {
  rewriter out(t);
  for (std::size_t at = 0; at < out.in().size(); ++at) {
    out.put(at, at + 1, to_byte_level(out.in().substr(at, 1)));
  }
}

void apply(const collapse_spaces_step&, normalized_text& t) {
  rewriter out(t);
  const std::string_view in = out.in();
  const std::size_t begin = std::min(in.find_first_not_of(' '), in.size());
  const std::size_t end = in.find_last_not_of(' ') + 1;  // npos + 1 is 0
  for (std::size_t at = begin; at < end; ++at) {
    if (in[at] != ' ' || in[at - 1] != ' ') out.keep(at, at + 1);
  }
}

}  // namespace

void normalizer::add(normalizer_step step) { steps_.push_back(std::move(step)); }

void normalizer::run(normalized_text& text) const {
  for (const normalizer_step& step : steps_) {
    std::visit([&text](const auto& s) { apply(s, text); }, step);
  }
}

}  // namespace tandem::text
