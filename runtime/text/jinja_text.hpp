// Text that remembers which of its bytes the template wrote (trusted) and which came from a user,
// and Python's view of text: characters are code points, whitespace and case are Unicode's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::text::jinja {

class traced_text {
 public:
  traced_text() = default;
  traced_text(std::string bytes, bool trusted)
      : bytes_(std::move(bytes)), first_trusted_(trusted) {}

  const std::string& bytes() const { return bytes_; }
  std::size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  // True when no byte is a user's.
  bool trusted() const { return empty() || (edges_.empty() && first_trusted_); }
  bool trusted_at(std::size_t offset) const;

  void append(std::string_view bytes, bool trusted);
  void append(const traced_text& other);
  // Bytes [from, to), each with its own trust.
  traced_text slice(std::size_t from, std::size_t to) const;

  // Calls f(bytes, trusted) for each stretch of equal trust, in order.
  template <class F>
  void for_each_run(F f) const {
    std::size_t from = 0;
    bool trust = first_trusted_;
    for (std::size_t edge : edges_) {
      f(std::string_view(bytes_).substr(from, edge - from), trust);
      from = edge;
      trust = !trust;
    }
    if (from < bytes_.size()) f(std::string_view(bytes_).substr(from), trust);
  }

 private:
  bool last_trusted() const { return first_trusted_ != (edges_.size() % 2 == 1); }

  std::string bytes_;
  std::vector<std::size_t> edges_;  // offsets inside the text where trust flips
  bool first_trusted_ = true;
};

// --- characters: code points of UTF-8; a byte that is not UTF-8 counts as one character of its own

struct character {
  char32_t code = 0;
  std::size_t bytes = 0;  // 0 at the end of the text
};
character character_at(std::string_view text, std::size_t offset);
character character_before(std::string_view text, std::size_t offset);
std::size_t character_count(std::string_view text);
bool is_ascii(std::string_view text);
void append_utf8(std::string& out, char32_t code);

bool is_space(char32_t c);      // Python's str.isspace
bool is_word(char32_t c);       // \w
bool is_printable(char32_t c);  // Python's str.isprintable
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);
bool is_line_end(char32_t c);  // Python's str.splitlines, "\r\n" aside

enum class case_change { upper, lower, title, capitalize, swap, fold };
traced_text change_case(const traced_text& text, case_change how);

// Offsets [from, to) of `text` without what `strip` takes away; empty `characters`: whitespace.
struct byte_range {
  std::size_t from = 0;
  std::size_t to = 0;
};
byte_range strip_range(std::string_view text, std::string_view characters, bool left, bool right);
// First place of `needle` at or after `from`; npos when there is none. Linear in the text.
std::size_t find_text(std::string_view text, std::string_view needle, std::size_t from);
std::vector<byte_range> split_lines(std::string_view text, bool keep_ends);

}  // namespace tandem::text::jinja
