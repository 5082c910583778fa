#include "gateway/command/console.hpp"

#include <algorithm>
#include <ostream>

namespace tandem::gateway::command {
namespace {

// One error, one line: whatever a server or a file put into the text.
std::string one_line(std::string_view text) {
  std::string line(text);
  std::ranges::replace_if(
      line, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  return line;
}

}  // namespace

std::string_view environment_value(const console& io, std::string_view name) {
  for (const auto& [key, value] : io.environment) {
    if (key == name) return value;
  }
  return {};
}

int refuse(const console& io, const error& why) {
  io.err << "tandem: " << one_line(why.detail) << std::endl;
  return why.code == errc::internal ? our_fault : world_said_no;
}

int refuse_usage(const console& io, std::string_view why) {
  io.err << "tandem: " << one_line(why) << std::endl;
  return wrong_usage;
}

}  // namespace tandem::gateway::command
