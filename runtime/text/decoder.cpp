#include "runtime/text/decoder.hpp"

#include "runtime/text/byte_level.hpp"

#include <algorithm>

namespace tandem::text {
namespace {

constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  std::string out;
  std::size_t done = 0;
  for (std::size_t at = 0; (at = text.find(from, done)) != std::string::npos;
       done = at + from.size()) {
    out.append(text, done, at - done);
    out += to;
  }
  if (done == 0) return;
  out.append(text, done);
  text = std::move(out);
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// The spaces that BERT's splitting put into English, taken out again; within one token.
void clean_up(std::string& text) {
  constexpr std::pair<std::string_view, std::string_view> rules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& rule : rules) replace_all(text, rule.first, rule.second);
}

// How much of the end of `text` could be the beginning of `what`.
std::size_t begun(std::string_view text, std::string_view what) {
  for (std::size_t n = std::min(text.size(), what.size() - 1); n > 0; --n) {
    if (text.ends_with(what.substr(0, n))) return n;
  }
  return 0;
}

}  // namespace

std::optional<char> byte_of_spelling(std::string_view s) {
  if (s.size() != 6 || !s.starts_with("<0x") || s[5] != '>') return std::nullopt;
  const int high = hex_digit(s[3]);
  const int low = hex_digit(s[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(static_cast<unsigned char>(high * 16 + low));
}

void decoder::add(decode_step step) { steps.push_back(std::move(step)); }

bool decoder::reads_bytes() const {
  return std::any_of(steps.begin(), steps.end(), [](const decode_step& s) {
    return std::holds_alternative<byte_level_decode>(s);
  });
}

bool decoder::has_byte_fallback() const {
  return std::any_of(steps.begin(), steps.end(), [](const decode_step& s) {
    return std::holds_alternative<byte_fallback_decode>(s);
  });
}

decoding::decoding(const decoder& steps, bool eager)
    : decoder_(&steps), eager_(eager), stages_(steps.steps.size()) {}

void decoding::add(std::string_view spelling, bool literal) {
  pass(0, {spelling, true, true, literal});
}

void decoding::finish() { finish(0); }

void decoding::pass(std::size_t step, const fragment& f) {
  if (step == stages_.size()) {
    out_ += f.text;
    return;
  }
  std::visit([&](const auto& s) { run(step, s, stages_[step], f); }, decoder_->steps[step]);
}

void decoding::finish(std::size_t step) {
  for (; step < stages_.size(); ++step) {
    std::visit([&](const auto& s) { end(step, s, stages_[step]); }, decoder_->steps[step]);
  }
}

std::optional<std::string> decoding::whole(stage& s, const fragment& f) {
  if (f.begins) s.held.clear();
  s.held += f.text;
  if (!f.ends) return std::nullopt;
  return std::exchange(s.held, {});
}

void decoding::run(std::size_t at, const byte_level_decode&, stage& s, const fragment& f) {
  // Fragments come whole here in every file we know; a part is read as if it were a token.
  const std::optional<std::string> bytes = f.literal ? std::nullopt : from_byte_level(f.text);
  s.held += bytes ? std::string_view(*bytes) : f.text;
  std::string text;
  move_characters(s.held, text, true);
  if (text.empty()) return;
  pass(at + 1, {text, !s.open, false});
  s.open = true;
}

void decoding::end(std::size_t at, const byte_level_decode&, stage& s) {
  std::string text;
  move_characters(s.held, text, false);
  pass(at + 1, {text, !s.open, true});
}

void decoding::run(std::size_t at, const byte_fallback_decode& step, stage& s, const fragment& f) {
  const std::optional<char> byte = f.literal ? std::nullopt : byte_of_spelling(f.text);
  if (!byte) {
    end(at, step, s);
    return pass(at + 1, f);
  }
  s.held += *byte;
  if (eager_) send_complete_bytes(at, s);
}

// The characters that are whole go out; the beginning of one stays.
void decoding::send_complete_bytes(std::size_t at, stage& s) {
  std::string held = s.held;
  std::string text;
  move_characters(held, text, true);
  if (text.empty()) return;
  std::string good;
  if (valid_utf8(std::string_view(s.held).substr(0, s.held.size() - held.size()), good).data() !=
      s.held.data()) {
    return end(at, byte_fallback_decode{}, s);
  }
  s.held = std::move(held);
  pass(at + 1, {text});
}

void decoding::end(std::size_t at, const byte_fallback_decode&, stage& s) {
  const std::string held = std::exchange(s.held, {});
  if (held.empty()) return;
  std::string storage;
  if (valid_utf8(held, storage).data() == held.data()) return pass(at + 1, {held});
  for (std::size_t i = 0; i < held.size(); ++i) pass(at + 1, {replacement_character});
}

void decoding::run(std::size_t at, const metaspace_decode& step, stage& s, const fragment& f) {
  if (f.begins) ++s.tokens;
  std::string text(f.text);
  replace_all(text, step.replacement, s.tokens == 1 && step.drop_first ? "" : " ");
  pass(at + 1, {text, f.begins, f.ends, f.literal});
}

void decoding::run(std::size_t at, const wordpiece_decode& step, stage& s, const fragment& f) {
  std::optional<std::string> token = whole(s, f);
  if (!token) return;
  if (s.tokens++ > 0) {
    if (token->starts_with(step.prefix)) {
      token->erase(0, step.prefix.size());
    } else {
      token->insert(0, " ");
    }
  }
  if (step.cleanup) clean_up(*token);
  pass(at + 1, {*token});
}

void decoding::run(std::size_t at, const replace_decode& step, stage& s, const fragment& f) {
  if (step.pattern) {
    const std::optional<std::string> token = whole(s, f);
    if (!token) return;
    std::vector<text_range> matches;
    step.pattern->find_all(*token, matches);
    std::string text;
    std::size_t done = 0;
    for (const text_range m : matches) {
      text.append(*token, done, m.begin - done);
      text += step.content;
      done = m.end;
    }
    text.append(*token, done);
    return pass(at + 1, {text, true, true, f.literal});
  }
  std::string text = std::exchange(s.held, {});
  text += f.text;
  if (!f.ends && !step.literal.empty()) {
    // A match could go on in the next fragment: only what lies behind the last one counts.
    const std::size_t last = text.rfind(step.literal);
    const std::size_t free = last == std::string::npos ? 0 : last + step.literal.size();
    const std::size_t kept = begun(std::string_view(text).substr(free), step.literal);
    s.held = text.substr(text.size() - kept);
    text.resize(text.size() - kept);
  }
  replace_all(text, step.literal, step.content);
  pass(at + 1, {text, f.begins, f.ends, f.literal});
}

void decoding::run(std::size_t at, const fuse_decode&, stage& s, const fragment& f) {
  pass(at + 1, {f.text, !s.open, false});
  s.open = true;
}

void decoding::end(std::size_t at, const fuse_decode&, stage& s) {
  pass(at + 1, {"", !s.open, true});
}

void decoding::run(std::size_t at, const strip_decode& step, stage& s, const fragment& f) {
  if (f.begins) {
    s.cut = 0;
    s.held.clear();
  }
  std::string text(f.text);
  std::size_t begin = 0;
  while (s.cut < step.start && text.compare(begin, step.content.size(), step.content) == 0) {
    begin += step.content.size();
    ++s.cut;
  }
  if (begin < text.size()) s.cut = step.start;  // something else: stripping is over
  text.erase(0, begin);
  text.insert(0, s.held);
  s.held.clear();
  std::size_t end = text.size();
  for (std::size_t n = 0;
       n < step.stop && std::string_view(text).substr(0, end).ends_with(step.content); ++n) {
    end -= step.content.size();
  }
  if (!f.ends) s.held = text.substr(end);
  text.resize(end);
  pass(at + 1, {text, f.begins, f.ends, f.literal});
}

void decoding::run(std::size_t at, const word_end_decode& step, stage& s, const fragment& f) {
  if (f.begins) {
    // Another token: what was held of the last one is no end.
    replace_all(s.held, step.suffix, " ");
    if (!s.held.empty()) pass(at + 1, {s.held});
    s.held.clear();
  }
  std::string text = std::exchange(s.held, {});
  text += f.text;
  const std::size_t suffix = step.suffix.empty() ? std::string::npos : text.find(step.suffix);
  if (suffix != std::string::npos) {
    s.held = text.substr(suffix);
    text.resize(suffix);
  }
  pass(at + 1, {text});
}

void decoding::end(std::size_t at, const word_end_decode& step, stage& s) {
  std::string text = std::exchange(s.held, {});
  replace_all(text, step.suffix, "");
  if (!text.empty()) pass(at + 1, {text});
}

void decoding::run(std::size_t at, const join_decode&, stage& s, const fragment& f) {
  if (f.begins && s.tokens++ > 0) pass(at + 1, {" "});
  pass(at + 1, f);
}

}  // namespace tandem::text
