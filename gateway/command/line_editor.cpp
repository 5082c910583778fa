#include "gateway/command/line_editor.hpp"

#include <istream>
#include <ostream>

#ifdef TANDEM_LIBEDIT
#include <editline/readline.h>

#include <cstdlib>
#include <memory>
#endif

namespace tandem::gateway::command {
namespace {

#ifdef TANDEM_LIBEDIT
std::optional<std::string> edited_line(const std::string& prompt) {
  struct freed {
    void operator()(char* text) const { std::free(text); }
  };
  const std::unique_ptr<char, freed> line(readline(prompt.c_str()));
  if (!line) return std::nullopt;
  if (*line) add_history(line.get());
  return std::string(line.get());
}
#endif

}  // namespace

std::optional<std::string> read_line(const console& io, const std::string& prompt) {
  const bool person = io.in_is_terminal && io.out_is_terminal;
#ifdef TANDEM_LIBEDIT
  if (person) return edited_line(prompt);
#endif
  if (person) io.out << prompt << std::flush;
  std::string line;
  if (!std::getline(io.in, line)) return std::nullopt;
  if (line.ends_with('\r')) line.pop_back();
  return line;
}

}  // namespace tandem::gateway::command
