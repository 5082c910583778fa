// The text of one choice: tokens in, whole characters out, stop strings cut off even when they span
// tokens. Text that could be the beginning of a stop string is held back until that is decided.
#pragma once

#include "runtime/serve/request.hpp"
#include "runtime/serve/stop_matcher.hpp"
#include "runtime/text/tokenizer.hpp"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tandem::serve {

class output_text {
 public:
  // `t` may be null: no text then, and stop strings never match.
  output_text(std::shared_ptr<const text::tokenizer> t, std::vector<std::string> stop,
              bool include_stop, bool skip_special);

  struct step {
    std::string text;                        // may be sent
    std::optional<std::string> stop_string;  // found: the choice ends here
  };
  // `may_stop` is false while fewer than min_tokens are out: stop strings are not looked for then,
  // and a later one cannot begin in that text.
  step add(token_id id, bool may_stop = true);
  // The end of the sequence for another reason: what was held back.
  std::string finish();

 private:
  std::optional<text::detokenizer> detokenizer_;
  stop_matcher matcher_;
};

}  // namespace tandem::serve
