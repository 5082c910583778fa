#include "runtime/text/regex.hpp"

#include <fmt/format.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace tandem::text {
namespace {

constexpr std::size_t pattern_bytes_max = 1 << 16;
constexpr std::size_t big_stack_bytes = 64 << 20;

struct code_deleter {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
};
struct compile_context_deleter {
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
};
struct match_data_deleter {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
};
struct match_context_deleter {
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};
struct stack_deleter {
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};

PCRE2_SPTR bytes_of(std::string_view s) { return reinterpret_cast<PCRE2_SPTR>(s.data()); }

}  // namespace

struct regex::program {
  std::unique_ptr<pcre2_code, code_deleter> code;
};

result<regex> regex::compile(std::string_view pattern) {
  if (pattern.size() > pattern_bytes_max) {
    return error{errc::unsupported,
                 fmt::format("a regular expression of {} bytes; at most {} are read",
                             pattern.size(), pattern_bytes_max),
                 {}};
  }
  const result<std::string> source = translate_regex(pattern);
  if (!source) return source.error();
  const std::unique_ptr<pcre2_compile_context, compile_context_deleter> context(
      pcre2_compile_context_create(nullptr));
  if (!context) return error{errc::no_memory, "no memory to compile a regular expression", {}};
  pcre2_set_parens_nest_limit(context.get(), 200);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int code = 0;
  PCRE2_SIZE at = 0;
  auto p = std::make_shared<program>();
  p->code.reset(pcre2_compile(bytes_of(*source), source->size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                              &code, &at, context.get()));
  if (!p->code) {
    std::string message(256, '\0');
    const int length = pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(message.data()),
                                               message.size());
    message.resize(static_cast<std::size_t>(length < 0 ? 0 : length));
    return error{
        errc::unsupported, fmt::format("regular expression '{}': {}", pattern, message), {}};
  }
  // Without it (no executable memory) the interpreter does the same, slower.
  (void)pcre2_jit_compile(p->code.get(), PCRE2_JIT_COMPLETE);
  return regex(std::move(p));
}

void regex::find_all(std::string_view text, std::vector<text_range>& out) const {
  const std::unique_ptr<pcre2_match_data, match_data_deleter> found(
      pcre2_match_data_create_from_pattern(program_->code.get(), nullptr));
  const std::unique_ptr<pcre2_match_context, match_context_deleter> context(
      pcre2_match_context_create(nullptr));
  ensure(found && context, "no memory to run a regular expression");
  // Honest patterns need a few steps a character.
  pcre2_set_match_limit(context.get(), static_cast<std::uint32_t>(std::min<std::size_t>(
                                           1'000'000 + 4 * text.size(), 100'000'000)));
  pcre2_set_heap_limit(context.get(), 256 << 10);  // KiB
  std::unique_ptr<pcre2_jit_stack, stack_deleter> stack;

  std::size_t at = 0;
  while (at < text.size()) {
    int rc = pcre2_match(program_->code.get(), bytes_of(text), text.size(), at, PCRE2_NO_UTF_CHECK,
                         found.get(), context.get());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !stack) {
      stack.reset(pcre2_jit_stack_create(1 << 16, big_stack_bytes, nullptr));
      pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
      continue;
    }
    if (rc < 0) break;
    const PCRE2_SIZE* place = pcre2_get_ovector_pointer(found.get());
    if (place[1] > place[0]) out.push_back({place[0], place[1]});
    if (place[1] > at) {
      at = place[1];
    } else {
      at += utf8_length(text[at]);
    }
  }
}

}  // namespace tandem::text
