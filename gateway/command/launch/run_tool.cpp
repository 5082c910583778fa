#include "gateway/command/launch/run_tool.hpp"

#include "gateway/command/launch/node_process.hpp"

#include <fmt/format.h>

#include <csignal>
#include <optional>

#include <poll.h>

namespace tandem::gateway::command {
namespace {

constexpr std::size_t lines_told_max = 3;

// The first lines it said, each without its name in front.
std::string complaint_of(const std::string& tool, const std::vector<std::string>& lines,
                         const std::optional<process_end>& end) {
  if (lines.empty()) return end ? end->words : "no answer";
  std::string all;
  for (std::size_t n = 0; n < lines.size() && n < lines_told_max; ++n) {
    const bool has_name = lines[n].starts_with(tool + ": ");
    all += (n > 0 ? "; " : "") + lines[n].substr(has_name ? tool.size() + 2 : 0);
  }
  return all;
}

}  // namespace

result<std::vector<std::string>> run_tool(const words_list& command,
                                          const std::filesystem::path& log,
                                          std::chrono::seconds within) {
  auto process = node_process::start(command, {}, log);
  if (!process) return process.error();
  pollfd waiting{(*process)->end_file(), POLLIN, 0};
  const auto limit = std::chrono::milliseconds(within).count();
  if (::poll(&waiting, 1, static_cast<int>(limit)) == 0) {
    (*process)->signal(SIGKILL);
    ::poll(&waiting, 1, -1);
    (void)(*process)->take_end();
    return error{errc::timed_out,
                 fmt::format("{} did not answer in {} s", command.front(), within.count()),
                 {}};
  }
  const auto end = (*process)->take_end();
  const auto lines = (*process)->take_lines();
  if (end && end->status == 0) return lines;
  return error{errc::unavailable,
               fmt::format("{}: {}", command.front(), complaint_of(command.front(), lines, end)),
               {}};
}

}  // namespace tandem::gateway::command
