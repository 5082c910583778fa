// Where a long call may be interrupted.
#pragma once

#include <functional>

namespace tandem {

// What a long call calls between pieces of its work: it may return much later, on the same thread.
using pause_point = std::function<void()>;
inline void no_pause() {}

}  // namespace tandem
