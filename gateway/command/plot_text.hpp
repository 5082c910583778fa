// A loss curve in characters: the training loss in Braille dots (two by four a character), the
// validation loss as o, axes with numbers.
#pragma once

#include "gateway/command/loss_curve.hpp"
#include "gateway/command/terminal.hpp"

#include <string>
#include <string_view>

namespace tandem::gateway::command {

struct text_style {
  bool colour = false;  // ANSI
  bool ascii = false;   // for terminals that know no Unicode
};

// Exactly size.rows lines of at most size.columns characters each. The curve is not empty.
std::string plot_as_text(const loss_curve& curve, std::string_view title, terminal_size size,
                         text_style style);

}  // namespace tandem::gateway::command
