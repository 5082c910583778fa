#include "runtime/lease/move_plan.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::lease {
namespace {

std::string who_holds(const bytes_by_owner& used) {
  std::string text;
  for (std::size_t i = 0; i < used.size(); ++i)
    if (used[i] != 0)
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ",
                          memory::name_of(static_cast<memory::owner>(i)), used[i]);
  return text.empty() ? "nothing" : text;
}

}  // namespace

result<move_plan> plan_move(const move_order& order) {
  ensure(order.shared_bytes <= order.job_bytes, "a job shares more than it has");
  move_plan plan;
  std::uint64_t now = 0;
  for (const auto bytes : order.used) now += bytes;
  if (trains(order.to)) plan.comes = order.job_bytes - order.shared_bytes;
  // Only as much as is missing: what can stay costs nothing and may be wanted again.
  for (std::size_t i = 0; i < order.used.size(); ++i) {
    const auto after = now - plan.dropped + plan.comes;
    if (after <= order.capacity) break;
    plan.dropped += std::min({order.droppable[i], order.used[i], after - order.capacity});
  }
  plan.stays = now - plan.dropped;
  plan.peak = std::max(now, plan.stays + plan.comes);
  if (plan.peak <= order.capacity) return plan;
  return error{
      errc::no_memory,
      fmt::format("{} cannot go from {} to {}: {} needs {} bytes there, {} of {} are free "
                  "({}), {} could be dropped; {} bytes are missing: raise devices.memory_fraction, "
                  "or give KV blocks less (model.kv_memory)",
                  order.device, name_of(order.from), name_of(order.to),
                  order.job.empty() ? "it" : order.job, plan.comes,
                  order.capacity - std::min(order.capacity, now), order.capacity,
                  who_holds(order.used), plan.dropped, plan.peak - order.capacity),
      "device"};
}

}  // namespace tandem::lease
