#include "runtime/text/pretokenizer.hpp"

#include "runtime/text/byte_level.hpp"

#include <algorithm>

namespace tandem::text {

const std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

// Splits one piece at `matches` (inside it, from left to right) and appends what remains. The piece
// is first written as parts that alternate between match and gap.
class splitter {
 public:
  splitter(split_behavior behavior, bool invert) : behavior_(behavior), invert_(invert) {}

  void split(text_range piece, const std::vector<text_range>& matches,
             std::vector<text_range>& out) {
    out_ = &out;
    first_ = out.size();
    was_match_ = false;
    std::size_t done = piece.begin;
    for (const text_range m : matches) {
      if (m.begin > done) part({done, m.begin}, invert_);
      part(m, !invert_);
      done = m.end;
    }
    if (piece.end > done) part({done, piece.end}, invert_);
  }

 private:
  void part(text_range r, bool match) {
    const bool joins = out_->size() > first_ && joins_previous(match);
    if (behavior_ == split_behavior::removed && match) return;
    if (joins) {
      out_->back().end = r.end;
    } else {
      out_->push_back(r);
    }
    was_match_ = match;
  }

  bool joins_previous(bool match) const {
    switch (behavior_) {
      case split_behavior::removed:
      case split_behavior::isolated:
        return false;
      case split_behavior::contiguous:
        return match == was_match_;
      case split_behavior::merged_with_previous:
        return match && !was_match_;
      case split_behavior::merged_with_next:
        return !match && was_match_;
    }
    return false;
  }

  split_behavior behavior_;
  bool invert_;
  bool was_match_ = false;
  std::vector<text_range>* out_ = nullptr;
  std::size_t first_ = 0;
};

// Runs `find` over every piece: it appends the matches inside the piece, as places in the text.
template <class Find>
void split_pieces(split_text& t, split_behavior behavior, bool invert, Find find) {
  std::vector<text_range> out;
  out.reserve(t.pieces.size());
  std::vector<text_range> matches;
  splitter s(behavior, invert);
  const std::size_t start = t.pieces.empty() ? 0 : t.pieces.front().begin;
  for (const text_range piece : t.pieces) {
    matches.clear();
    find(piece, matches);
    s.split(piece, matches, out);
  }
  t.at_start = t.at_start && !out.empty() && out.front().begin == start;
  t.pieces = std::move(out);
}

template <class Test>
void match_characters(std::string_view text, text_range piece, std::vector<text_range>& out,
                      Test test) {
  const std::string_view part = text.substr(0, piece.end);
  for (std::size_t at = piece.begin; at < piece.end;) {
    const std::size_t begin = at;
    if (test(next_character(part, at))) out.push_back({begin, at});
  }
}

void match_regex(const regex& pattern, std::string_view text, text_range piece,
                 std::vector<text_range>& out) {
  pattern.find_all(slice(text, piece), out);
  for (text_range& m : out) m = {m.begin + piece.begin, m.end + piece.begin};
}

void apply(const regex_split& step, split_text& t) {
  split_pieces(t, step.behavior, step.invert, [&](text_range piece, std::vector<text_range>& out) {
    match_regex(step.pattern, t.text, piece, out);
  });
}

void apply(const literal_split& step, split_text& t) {
  split_pieces(t, step.behavior, step.invert, [&](text_range piece, std::vector<text_range>& out) {
    const std::string_view part = t.text.substr(0, piece.end);
    for (std::size_t at = piece.begin;
         !step.literal.empty() && (at = part.find(step.literal, at)) != std::string_view::npos;
         at += step.literal.size()) {
      out.push_back({at, at + step.literal.size()});
    }
  });
}

void apply(const character_split& step, split_text& t) {
  split_pieces(t, step.behavior, false, [&](text_range piece, std::vector<text_range>& out) {
    match_characters(t.text, piece, out, step.matches);
  });
}

void apply(const word_split&, split_text& t) {
  enum class kind : std::uint8_t { space, word, other };
  split_pieces(
      t, split_behavior::removed, true, [&](text_range piece, std::vector<text_range>& out) {
        kind last = kind::space;
        const std::string_view part = t.text.substr(0, piece.end);
        for (std::size_t at = piece.begin; at < piece.end;) {
          const std::size_t begin = at;
          const char32_t c = next_character(part, at);
          const kind now = is_word(c) ? kind::word : is_white_space(c) ? kind::space : kind::other;
          if (now != kind::space) {
            if (now == last) {
              out.back().end = at;
            } else {
              out.push_back({begin, at});
            }
          }
          last = now;
        }
      });
}

void apply(const length_split& step, split_text& t) {
  split_pieces(t, split_behavior::isolated, false,
               [&](text_range piece, std::vector<text_range>& out) {
                 std::size_t begin = piece.begin;
                 for (std::size_t count = 0; begin < piece.end; count = 0) {
                   std::size_t at = begin;
                   while (at < piece.end && count++ < step.characters)
                     at += utf8_length(t.text[at]);
                   out.push_back({begin, at});
                   begin = at;
                 }
               });
}

// Rewrites the text piece by piece; `write` appends what a piece becomes.
template <class Write>
void rewrite(split_text& t, Write write) {
  std::string out;
  out.reserve(t.text.size() + t.text.size() / 2);
  bool first = t.at_start;
  for (text_range& piece : t.pieces) {
    const std::size_t begin = out.size();
    write(slice(t.text, piece), first, out);
    piece = {begin, out.size()};
    first = false;
  }
  t.storage = std::move(out);
  t.text = t.storage;
}

void apply(const metaspace_split& step, split_text& t) {
  rewrite(t, [&](std::string_view piece, bool first, std::string& out) {
    const bool wanted =
        step.scheme == prepend_scheme::always || (step.scheme == prepend_scheme::first && first);
    if (wanted && !piece.starts_with(' ') && !piece.starts_with(step.replacement)) {
      out += step.replacement;
    }
    for (const char c : piece) {
      if (c == ' ') {
        out += step.replacement;
      } else {
        out += c;
      }
    }
  });
  if (step.split)
    apply(literal_split{step.replacement, split_behavior::merged_with_next, false}, t);
}

void apply(const byte_level_split& step, split_text& t) {
  const auto lacks_space = [&](text_range piece) { return t.text[piece.begin] != ' '; };
  if (step.add_prefix_space && std::any_of(t.pieces.begin(), t.pieces.end(), lacks_space)) {
    rewrite(t, [](std::string_view piece, bool, std::string& out) {
      if (!piece.starts_with(' ')) out += ' ';
      out += piece;
    });
  }
  if (step.pattern) {
    split_pieces(t, split_behavior::isolated, false,
                 [&](text_range piece, std::vector<text_range>& out) {
                   match_regex(*step.pattern, t.text, piece, out);
                 });
  }
  if (step.encode) {
    rewrite(t, [](std::string_view piece, bool, std::string& out) { out += to_byte_level(piece); });
  }
}

}  // namespace

void pre_tokenizer::add(split_step step) { steps_.push_back(std::move(step)); }

bool pre_tokenizer::leave_bytes_to_model() {
  auto* last = steps_.empty() ? nullptr : std::get_if<byte_level_split>(&steps_.back());
  if (last == nullptr) return false;
  last->encode = false;
  return true;
}

void pre_tokenizer::run(split_text& text) const {
  for (const split_step& step : steps_) {
    std::visit([&text](const auto& s) { apply(s, text); }, step);
  }
}

}  // namespace tandem::text
