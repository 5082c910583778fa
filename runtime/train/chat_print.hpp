// A conversation as the model's own template prints it, and which bytes of the print the assistant
// turns are. One print of the whole conversation is what is trained on; other prints only find the
// places in it. What cannot be placed is refused, never guessed.
//
// A turn begins where the generation prompt ends that serving would have printed for it, and ends
// behind the token that ends generation; white space a template puts after that is not part of it.
#pragma once

#include "runtime/result.hpp"
#include "runtime/text/chat_template.hpp"
#include "runtime/text/utf8.hpp"
#include "runtime/train/dataset.hpp"
#include "runtime/train/example_form.hpp"

#include <functional>
#include <string>
#include <vector>

namespace tandem::train {

struct chat_print {
  std::vector<text::prompt_piece> pieces;
  std::vector<text::text_range> turns;  // of the turns that count, in order; bytes of the print
  // The last turn ends without any control token, so that nothing would end generation: the end
  // token is to follow.
  bool open_end = false;
};

// `error::param` is the field at fault ("messages[2]"). Placing turns takes prints of its own:
// `go_on` hears the whole print first and may say that it is not worth it (no turns then).
result<chat_print> print_chat(
    const chat_form& chat, const reader& how,
    const std::function<bool(const std::vector<text::prompt_piece>&)>& go_on);

}  // namespace tandem::train
