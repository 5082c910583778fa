// What an exception said must survive the actor it ended: CAF keeps only that there was one.
#pragma once

#include "actors/messages.hpp"
#include "runtime/log.hpp"

#include <caf/all.hpp>

#include <exception>
#include <string>

namespace tandem::actors {

// The text of an exception, for exit reasons and logs.
inline std::string text_of(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an exception of no known type";
  }
}

// From now on an exception that leaves one of `self`'s handlers ends the actor with an error that
// carries the exception's text, for its monitors to read.
template <class Self>
void keep_exception_text(Self* self) {
  self->set_exception_handler([](std::exception_ptr& thrown) -> caf::error {
    return to_caf({errc::internal, text_of(thrown), ""});
  });
}

}  // namespace tandem::actors
