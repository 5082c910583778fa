// From messages as clients and training files write them to messages as chat templates expect them.
// Serving and training both print through here, so that a model is asked as it was taught.
#pragma once

#include "runtime/text/tokenizer.hpp"
#include "runtime/text/value.hpp"

#include <array>
#include <string_view>

namespace tandem::text {

inline constexpr auto chat_roles =
    std::to_array<std::string_view>({"system", "developer", "user", "assistant", "tool"});

// `message` is an object whose role is one of the above and whose content is absent, null, a string
// or a list of strings and {"type": "text" | "refusal"} parts; both are checked by the caller. Role
// and content come first then: "developer" is "system", the content is one text (parts on lines of
// their own). Null members are gone, and a tool call's arguments are an object.
value template_message(value message);

// Templates print arguments as JSON themselves; given text they would print it twice escaped. Text
// that is no JSON object stays as it is.
void open_tool_arguments(value& tool_calls);

// bos_token, eos_token and unk_token as templates expect them at the top of their context: empty
// where a model has none, unk_token missing.
void add_token_spellings(value& context, const tokenizer& of);

}  // namespace tandem::text
