// `ensure`: our program is wrong. Always on, ends the process with one line. Never for what a user,
// a file or a peer can cause: that is `result<T>` in runtime/result.hpp.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace tandem {

// Builtins rather than std::source_location: clang 14 lacks it.
inline void ensure(bool holds, const char* what, const char* file = __builtin_FILE(),
                   int line = __builtin_LINE()) {
  if (holds) [[likely]]
    return;
  std::fprintf(stderr, "tandem: broken invariant: %s (%s:%d)\n", what, file, line);
  std::fflush(stderr);
  std::abort();
}

}  // namespace tandem
