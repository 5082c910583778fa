// Token spellings back to text: a list of steps read from the file. A step works on a stream, so
// that decoding at once and decoding token by token are the same code.
#pragma once

#include "runtime/text/regex.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace tandem::text {

// Bytes in the printable alphabet; from here on all tokens are one.
struct byte_level_decode {};
// <0x0A> is that byte; a run of them is the text they spell, or one U+FFFD each.
struct byte_fallback_decode {};
struct metaspace_decode {
  std::string replacement;
  bool drop_first = true;
};
struct wordpiece_decode {
  std::string prefix;
  bool cleanup = true;
};
struct replace_decode {
  std::string literal;
  std::optional<regex> pattern;
  std::string content;
};
struct fuse_decode {};
struct strip_decode {
  std::string content;
  std::size_t start = 0;
  std::size_t stop = 0;
};
// The suffix of a word's last token is the space behind it.
struct word_end_decode {
  std::string suffix;
};
// What a file without a decoder gets: a space between two tokens.
struct join_decode {};

using decode_step =
    std::variant<byte_level_decode, byte_fallback_decode, metaspace_decode, wordpiece_decode,
                 replace_decode, fuse_decode, strip_decode, word_end_decode, join_decode>;

struct decoder {
  std::vector<decode_step> steps;
  void add(decode_step step);
  bool reads_bytes() const;  // has a byte_level_decode
  bool has_byte_fallback() const;
};

// One decoding under way. Copies go on independently; the decoder must outlive them.
class decoding {
 public:
  // `eager`: a whole character goes out as soon as it is there, even if a later byte shows that its
  // run of byte tokens is broken, which makes all of it U+FFFD when decoded at once.
  decoding(const decoder& steps, bool eager);

  // `literal` text stands for itself, even where the steps read an alphabet.
  void add(std::string_view spelling, bool literal);
  void finish();
  // What came out since the last call.
  std::string take() { return std::exchange(out_, {}); }

 private:
  // A token, or a part of one.
  struct fragment {
    std::string_view text;
    bool begins = true;
    bool ends = true;
    bool literal = false;
  };
  // What a step remembers; each uses what it needs.
  struct stage {
    std::string held;        // text not yet passed on
    std::size_t tokens = 0;  // begun so far
    std::size_t cut = 0;     // leading characters stripped from this token
    bool open = false;       // the one fused token has begun
    bool literal = false;
  };
  void pass(std::size_t step, const fragment& f);
  void finish(std::size_t step);
  // The whole token when `f` ends it; nothing before.
  static std::optional<std::string> whole(stage& s, const fragment& f);

  void run(std::size_t at, const byte_level_decode&, stage& s, const fragment& f);
  void run(std::size_t at, const byte_fallback_decode&, stage& s, const fragment& f);
  void run(std::size_t at, const metaspace_decode&, stage& s, const fragment& f);
  void run(std::size_t at, const wordpiece_decode&, stage& s, const fragment& f);
  void run(std::size_t at, const replace_decode&, stage& s, const fragment& f);
  void run(std::size_t at, const fuse_decode&, stage& s, const fragment& f);
  void run(std::size_t at, const strip_decode&, stage& s, const fragment& f);
  void run(std::size_t at, const word_end_decode&, stage& s, const fragment& f);
  void run(std::size_t at, const join_decode&, stage& s, const fragment& f);
  void end(std::size_t at, const byte_level_decode&, stage& s);
  void end(std::size_t at, const byte_fallback_decode&, stage& s);
  void end(std::size_t at, const fuse_decode&, stage& s);
  void end(std::size_t at, const word_end_decode&, stage& s);
  template <class Step>
  void end(std::size_t, const Step&, stage&) {}
  void send_complete_bytes(std::size_t at, stage& s);

  const decoder* decoder_;
  bool eager_;
  std::vector<stage> stages_;
  std::string out_;
};

// The byte of "<0x0A>"; nothing for other spellings.
std::optional<char> byte_of_spelling(std::string_view spelling);

}  // namespace tandem::text
