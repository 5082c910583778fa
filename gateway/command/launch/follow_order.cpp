#include "gateway/command/launch/follow_order.hpp"

#include "gateway/command/interrupt.hpp"
#include "gateway/command/launch/launcher.hpp"

#include <fmt/format.h>

#include <chrono>
#include <optional>
#include <ostream>
#include <utility>

#include <poll.h>

namespace tandem::gateway::command {
namespace {

using clock = std::chrono::steady_clock;

constexpr int look_again_ms = 50;
constexpr auto beyond_draining = std::chrono::minutes(2);  // to start, and to try again

void tell_changes(const console& io, const launch_record& before, const launch_record& now) {
  for (std::size_t n = 0; n < now.nodes.size(); ++n) {
    const auto& node = now.nodes[n];
    const auto& name = now.plan.nodes[n].name;
    if (node.state == before.nodes[n].state) continue;
    if (node.state == "absent")
      io.out << name << ": ended" << std::endl;
    else if (node.why.empty())
      io.out << name << ": " << node.state << std::endl;
    else
      io.err << name << ": " << node.state << ": " << node.why << std::endl;
  }
}

int ups(const launch_record& record) {
  int count = 0;
  for (const auto& node : record.nodes) count += node.state == "up" ? 1 : 0;
  return count;
}

}  // namespace

followed_order follow_order(const console& io, const launch_files& files, int wanted,
                            const std::string& order, bool quiet) {
  followed_order followed;
  const auto give_up = [&](errc code, std::string why) {
    followed.status = refuse(io, {code, std::move(why), {}});
    return followed;
  };
  std::unique_ptr<node_process> launcher;
  if (!files.has_launcher()) {
    auto started = start_launcher(files);
    if (!started) return give_up(started.error().code, started.error().detail);
    launcher = *std::move(started);
  }
  const interrupt_watch ctrl_c;
  auto end_by = clock::time_point::max();
  while (true) {
    // Looked at before the record: what a launcher wrote last is read after its end.
    const auto end = launcher ? launcher->take_end() : std::nullopt;
    const bool is_alone = !launcher && !files.has_launcher();
    auto record = files.read();
    if (!record) return give_up(record.error().code, record.error().detail);
    if (*record) {
      if (!quiet && !followed.record.nodes.empty()) tell_changes(io, followed.record, **record);
      followed.record = **std::move(record);
      const auto patience = std::chrono::milliseconds(2 * followed.record.plan.drain_timeout_ms);
      if (end_by == clock::time_point::max()) end_by = clock::now() + patience + beyond_draining;
    }
    if (followed.record.order == order && followed.record.settled) break;
    std::string last;
    if (launcher) {
      for (auto& line : launcher->take_lines()) last = std::move(line);
      if (end) return give_up(errc::unavailable, fmt::format("the launcher ended: {}", last));
    } else if (is_alone) {
      return give_up(errc::unavailable,
                     "the launcher has ended meanwhile: give the order again for a new one");
    }
    if (ctrl_c.seen())
      return give_up(errc::cancelled, "the order stands, and is carried out without you");
    if (clock::now() >= end_by)
      return give_up(errc::timed_out,
                     fmt::format("{} of {} nodes are up by now, and the order stands: `tandem "
                                 "nodes`, and the logs in {}",
                                 ups(followed.record), wanted, files.folder().string()));
    ::poll(nullptr, 0, look_again_ms);
  }
  if (ups(followed.record) != wanted) {
    followed.status = world_said_no;
    if (!quiet)
      io.err << fmt::format("tandem: {} of {} nodes are up", ups(followed.record), wanted)
             << std::endl;
  }
  return followed;
}

}  // namespace tandem::gateway::command
