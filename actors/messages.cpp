#include "actors/messages.hpp"

namespace tandem::actors {

// CAF's error of code 0 is no error at all, and would be no answer either: ours count from 1.
caf::error to_caf(const error& why) {
  return {static_cast<std::uint8_t>(static_cast<int>(why.code) + 1), caf::atom("tandem"),
          caf::make_message(why.detail, why.param)};
}

bool is_refusal(const caf::error& why) { return why.category() == caf::atom("tandem"); }

error from_caf(const caf::error& why) {
  if (why.category() == caf::atom("tandem") &&
      why.context().match_elements<std::string, std::string>())
    return {static_cast<errc>(why.code() - 1), why.context().get_as<std::string>(0),
            why.context().get_as<std::string>(1)};
  if (why == caf::exit_reason::remote_link_unreachable)
    return {errc::internal, "the process it ran in is gone", ""};
  return {errc::internal,
          "an actor failed: " + caf::to_string(why.category()) + " " + std::to_string(why.code()) +
              " " + caf::to_string(why.context()),
          ""};
}

}  // namespace tandem::actors
