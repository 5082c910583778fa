// Tokens to a tree. Jinja's grammar and order of precedence; filters and tests are bound here, so
// that an unknown one is found when the template is compiled.
#pragma once

#include "runtime/text/jinja_ast.hpp"

#include <string_view>

namespace tandem::text::jinja {

// Throws `refusal` with the line of what is wrong.
program_tree parse(std::string_view source);

}  // namespace tandem::text::jinja
