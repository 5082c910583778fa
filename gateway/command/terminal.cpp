#include "gateway/command/terminal.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

namespace tandem::gateway::command {
namespace {

// Nothing can be drawn in less, and nobody has more.
constexpr std::size_t columns_min = 20;
constexpr std::size_t rows_min = 8;
constexpr std::size_t size_max = 1000;

std::size_t set_size(const console& io, std::string_view name) {
  const std::string_view digits = environment_value(io, name);
  std::size_t size = 0;
  const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), size);
  return failed == std::errc() && end == digits.data() + digits.size() ? size : 0;
}

}  // namespace

terminal_size size_of_terminal(const console& io) {
  terminal_size size;
  winsize told{};
  const bool terminal = io.out_is_terminal || io.err_is_terminal;
  const int descriptor = io.out_is_terminal ? STDOUT_FILENO : STDERR_FILENO;
  if (terminal && ::ioctl(descriptor, TIOCGWINSZ, &told) == 0 && told.ws_col > 0 &&
      told.ws_row > 0) {
    size = {told.ws_col, told.ws_row};
  }
  if (const std::size_t set = set_size(io, "COLUMNS")) size.columns = set;
  if (const std::size_t set = set_size(io, "LINES")) size.rows = set;
  return {std::clamp(size.columns, columns_min, size_max),
          std::clamp(size.rows, rows_min, size_max)};
}

}  // namespace tandem::gateway::command
