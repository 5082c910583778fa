#include "runtime/text/jinja_text.hpp"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <cstring>

namespace tandem::text::jinja {

bool traced_text::trusted_at(std::size_t offset) const {
  auto passed = std::upper_bound(edges_.begin(), edges_.end(), offset) - edges_.begin();
  return first_trusted_ != (passed % 2 == 1);
}

void traced_text::append(std::string_view bytes, bool trusted) {
  if (bytes.empty()) return;
  if (bytes_.empty())
    first_trusted_ = trusted;
  else if (trusted != last_trusted())
    edges_.push_back(bytes_.size());
  bytes_ += bytes;
}

void traced_text::append(const traced_text& other) {
  other.for_each_run([this](std::string_view run, bool trusted) { append(run, trusted); });
}

traced_text traced_text::slice(std::size_t from, std::size_t to) const {
  traced_text part;
  if (from >= to) return part;
  part.bytes_.assign(bytes_, from, to - from);
  part.first_trusted_ = trusted_at(from);
  auto first = std::upper_bound(edges_.begin(), edges_.end(), from);
  auto last = std::lower_bound(first, edges_.end(), to);
  for (auto edge = first; edge != last; ++edge) part.edges_.push_back(*edge - from);
  return part;
}

character character_at(std::string_view text, std::size_t offset) {
  if (offset >= text.size()) return {};
  auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  unsigned char lead = byte(offset);
  if (lead < 0x80) return {lead, 1};
  std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || offset + length > text.size()) return {lead, 1};
  char32_t code = lead & (0xFFU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(offset + i) & 0xC0) != 0x80) return {lead, 1};
    code = (code << 6) | (byte(offset + i) & 0x3FU);
  }
  return {code, length};
}

character character_before(std::string_view text, std::size_t offset) {
  if (offset == 0) return {};
  for (std::size_t bytes = std::min<std::size_t>(4, offset); bytes > 1; --bytes) {
    character c = character_at(text, offset - bytes);
    if (c.bytes == bytes) return c;
  }
  return {static_cast<unsigned char>(text[offset - 1]), 1};
}

std::size_t character_count(std::string_view text) {
  if (is_ascii(text)) return text.size();
  std::size_t count = 0;
  for (std::size_t i = 0; i < text.size(); i += character_at(text, i).bytes) ++count;
  return count;
}

bool is_ascii(std::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
}

void append_utf8(std::string& out, char32_t code) {
  auto put = [&](char32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

bool is_word(char32_t c) {
  auto point = static_cast<UChar32>(c);
  return c == '_' || u_isalpha(point) ||
         u_getIntPropertyValue(point, UCHAR_NUMERIC_TYPE) != U_NT_NONE;
}

bool is_printable(char32_t c) {
  if (c == ' ') return true;
  switch (u_charType(static_cast<UChar32>(c))) {
    case U_CONTROL_CHAR:
    case U_FORMAT_CHAR:
    case U_SURROGATE:
    case U_PRIVATE_USE_CHAR:
    case U_UNASSIGNED:
    case U_LINE_SEPARATOR:
    case U_PARAGRAPH_SEPARATOR:
    case U_SPACE_SEPARATOR:
      return false;
    default:
      return true;
  }
}

bool is_lower(char32_t c) {
  return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_LOWERCASE) != 0;
}
bool is_upper(char32_t c) {
  return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_UPPERCASE) != 0;
}
bool is_title(char32_t c) { return u_charType(static_cast<UChar32>(c)) == U_TITLECASE_LETTER; }

bool is_line_end(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

namespace {

using icu_change = icu::UnicodeString& (*)(icu::UnicodeString&);

icu::UnicodeString& to_upper(icu::UnicodeString& s) { return s.toUpper(icu::Locale::getRoot()); }
icu::UnicodeString& to_lower(icu::UnicodeString& s) { return s.toLower(icu::Locale::getRoot()); }
icu::UnicodeString& fold(icu::UnicodeString& s) { return s.foldCase(); }

std::string through_icu(std::string_view run, icu_change change) {
  auto size = static_cast<std::int32_t>(run.size());
  auto wide = icu::UnicodeString::fromUTF8(icu::StringPiece(run.data(), size));
  std::string out;
  return change(wide).toUTF8String(out);
}

// The title form of one character: usually its upper form, "Ss" for a sharp s.
std::string title_form(std::string_view one, char32_t code) {
  auto simple = static_cast<char32_t>(u_totitle(static_cast<UChar32>(code)));
  std::string out;
  if (simple != code) {
    append_utf8(out, simple);
    return out;
  }
  std::string upper = through_icu(one, to_upper);
  std::size_t first = character_at(upper, 0).bytes;
  return upper.substr(0, first) + through_icu(std::string_view(upper).substr(first), to_lower);
}

traced_text whole_runs(const traced_text& text, icu_change change) {
  traced_text out;
  text.for_each_run(
      [&](std::string_view run, bool trusted) { out.append(through_icu(run, change), trusted); });
  return out;
}

}  // namespace

traced_text change_case(const traced_text& text, case_change how) {
  if (how == case_change::upper) return whole_runs(text, to_upper);
  if (how == case_change::lower) return whole_runs(text, to_lower);
  if (how == case_change::fold) return whole_runs(text, fold);
  traced_text out;
  std::string_view all = text.bytes();
  bool after_cased = false;
  for (std::size_t i = 0; i < all.size();) {
    character c = character_at(all, i);
    std::string_view one = all.substr(i, c.bytes);
    std::string changed;
    if (how == case_change::swap)
      changed = through_icu(one, is_upper(c.code) ? to_lower : to_upper);
    else if (how == case_change::title ? after_cased : i > 0)
      changed = through_icu(one, to_lower);
    else
      changed = title_form(one, c.code);
    out.append(changed, text.trusted_at(i));
    after_cased = is_lower(c.code) || is_upper(c.code) || is_title(c.code);
    i += c.bytes;
  }
  return out;
}

byte_range strip_range(std::string_view text, std::string_view characters, bool left, bool right) {
  auto goes = [&](character c, std::size_t at) {
    if (characters.empty()) return is_space(c.code);
    return characters.find(text.substr(at, c.bytes)) != std::string_view::npos;
  };
  byte_range kept{0, text.size()};
  while (left && kept.from < kept.to) {
    character c = character_at(text, kept.from);
    if (!goes(c, kept.from)) break;
    kept.from += c.bytes;
  }
  while (right && kept.from < kept.to) {
    character c = character_before(text, kept.to);
    if (!goes(c, kept.to - c.bytes)) break;
    kept.to -= c.bytes;
  }
  return kept;
}

std::size_t find_text(std::string_view text, std::string_view needle, std::size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
}

std::vector<byte_range> split_lines(std::string_view text, bool keep_ends) {
  std::vector<byte_range> lines;
  std::size_t start = 0;
  for (std::size_t i = 0; i < text.size();) {
    character c = character_at(text, i);
    std::size_t end = i + c.bytes;
    if (is_line_end(c.code)) {
      if (c.code == '\r' && end < text.size() && text[end] == '\n') ++end;
      lines.push_back({start, keep_ends ? end : i});
      start = end;
    }
    i = end;
  }
  if (start < text.size()) lines.push_back({start, text.size()});
  return lines;
}

}  // namespace tandem::text::jinja
