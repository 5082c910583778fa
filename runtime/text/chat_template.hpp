// The chat templates that models ship: a Jinja subset, compiled once, rendered with limits.
#pragma once

#include "runtime/result.hpp"
#include "runtime/text/tokenizer.hpp"
#include "runtime/text/value.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::text {

struct render_options {
  // What strftime_now() takes for now, in seconds since 1970; unset: the clock.
  std::optional<std::int64_t> now;
};

// Immutable after compile; `render` may be called from any thread.
class chat_template {
 public:
  // Syntax errors and unknown filters, tests or functions are refused here with the line and what
  // was wrong.
  static result<chat_template> compile(std::string_view source);

  // Prints the template with `context` (an object: messages, add_generation_prompt, bos_token,
  // eos_token, tools, ...). raise_exception(), an undefined variable used as a value, and output or
  // work beyond the stated bounds are errors; nothing is printed then.
  result<std::string> render(const value& context, const render_options& options = {}) const;

  // As `render`, but every piece of the output says whether it came from the template's own
  // literals (trusted) or from a string inside `context` (a user's words, however they were
  // filtered, sliced or joined). bos_token, eos_token and other strings directly in the context's
  // top level are trusted; strings under `messages`, `tools` and `documents`, and whatever else
  // is nested, are not, except a message's "role" when it is a plain word.
  result<std::vector<prompt_piece>> render_pieces(const value& context,
                                                  const render_options& options = {}) const;

  chat_template(const chat_template&);
  chat_template(chat_template&&) noexcept;
  chat_template& operator=(const chat_template&);
  chat_template& operator=(chat_template&&) noexcept;
  ~chat_template();

  struct program;

 private:
  explicit chat_template(std::shared_ptr<const program> p);
  std::shared_ptr<const program> program_;
};

}  // namespace tandem::text
