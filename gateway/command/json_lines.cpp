#include "gateway/command/json_lines.hpp"

#include <fmt/format.h>

#include <istream>
#include <ostream>

namespace tandem::gateway::command {
namespace {

text::value refused(std::string detail) {
  return text::value::object{{"error", std::move(detail)}};
}

}  // namespace

int for_each_json_line(const console& io, bool errors_count,
                       const std::function<result<text::value>(const text::value&)>& answer) {
  int status = done;
  std::string line;
  for (std::size_t number = 1; std::getline(io.in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto input = text::value::from_json(line);
    if (!input || !input->if_object()) {
      status = world_said_no;
      io.out << refused(fmt::format("line {}: {}", number,
                                    input ? "not a JSON object" : input.error().detail))
                    .to_json()
             << '\n';
      continue;
    }
    const auto output = answer(*input);
    if (!output && errors_count) status = world_said_no;
    io.out << (output ? *output : refused(output.error().detail)).to_json() << '\n';
    // A program on the other end of a pipe may wait for this line before it writes the next.
    if (io.in.rdbuf()->in_avail() <= 0) io.out.flush();
  }
  io.out.flush();
  if (!io.out) return refuse(io, {errc::io, "standard output is closed", {}});
  return status;
}

}  // namespace tandem::gateway::command
