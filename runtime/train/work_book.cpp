#include "runtime/train/work_book.hpp"

#include "kernels/ensure.hpp"

#include <algorithm>
#include <utility>

namespace tandem::train {

work_book::work_book(int ranks)
    : workers_(static_cast<std::size_t>(ranks)),
      items_(static_cast<std::size_t>(ranks), progress::absent),
      begun_(static_cast<std::size_t>(ranks), 0) {
  ensure(ranks > 0, "a job on no device");
}

void work_book::begin(order_kind kind, const std::vector<int>& homes) {
  ensure(done(), "a phase begins before the last one is done");
  ensure(!homes.empty() && kind != order_kind::gather, "a phase of nothing");
  kind_ = kind;
  std::fill(items_.begin(), items_.end(), progress::absent);
  std::fill(begun_.begin(), begun_.end(), 0);
  for (const int home : homes) items_.at(static_cast<std::size_t>(home)) = progress::open;
}

bool work_book::done() const {
  return std::all_of(items_.begin(), items_.end(),
                     [](progress p) { return p == progress::absent || p == progress::done; }) &&
         std::none_of(workers_.begin(), workers_.end(),
                      [](const worker& who) { return who.holds.has_value(); });
}

void work_book::grant(int rank) { at(rank).works = true; }
void work_book::revoke(int rank, std::int64_t now_ms) {
  if (std::exchange(at(rank).works, false)) at(rank).stands_since_ms = now_ms;
}

bool work_book::anyone_works() const {
  return std::any_of(workers_.begin(), workers_.end(), [](const worker& who) { return who.works; });
}

bool work_book::finished(int rank) {
  auto& who = at(rank);
  if (!who.holds) return false;
  const auto what = *std::exchange(who.holds, std::nullopt);
  if (what.kind == order_kind::gather) {
    who.version = who.holds_version;
    return false;
  }
  items_[static_cast<std::size_t>(what.home)] = progress::done;
  return true;
}

void work_book::release(worker& who) {
  if (!who.holds) return;
  const auto what = *std::exchange(who.holds, std::nullopt);
  if (what.kind != order_kind::gather) items_[static_cast<std::size_t>(what.home)] = progress::open;
}

void work_book::refused(int rank) {
  auto& who = at(rank);
  if (!who.dropping) release(who);  // otherwise the drop's own answer does
}

void work_book::dropped(int rank) {
  at(rank).dropping = false;
  release(at(rank));
}

bool work_book::drop(int rank) {
  auto& who = at(rank);
  return who.holds && !std::exchange(who.dropping, true);
}

bool work_book::must_gather(const worker& who) const {
  const bool reads = kind_ == order_kind::accumulate || kind_ == order_kind::evaluate ||
                     kind_ == order_kind::publish;
  return reads && workers_.size() > 1 && who.version != version_;
}

void work_book::deal(int rank, std::size_t home, actions& now) {
  auto& who = at(rank);
  const bool gathers = must_gather(who);
  who.holds = assignment{rank, gathers ? order_kind::gather : kind_,
                         gathers ? rank : static_cast<int>(home)};
  who.holds_version = version_;
  if (!gathers) {
    items_[home] = progress::held;
    ++begun_[home];
  }
  now.deal.push_back(*who.holds);
}

std::int64_t work_book::patience_with(const assignment& what) const {
  if (what.kind == order_kind::gather) return patience_ms;
  constexpr int takeovers_at_once = 2;
  return begun_[static_cast<std::size_t>(what.home)] > takeovers_at_once ? patience_ms : 0;
}

work_book::actions work_book::next(std::int64_t now_ms) {
  actions now;
  std::vector<int> idle_ranks;
  for (int rank = 0; rank < std::ssize(workers_); ++rank)
    if (const auto& who = at(rank); who.works && !who.holds && !who.dropping) {
      if (items_[static_cast<std::size_t>(rank)] == progress::open)
        deal(rank, static_cast<std::size_t>(rank), now);
      else
        idle_ranks.push_back(rank);
    }
  auto idle = std::ssize(idle_ranks);
  for (const int rank : idle_ranks) {
    const auto open = std::find(items_.begin(), items_.end(), progress::open);
    if (open == items_.end()) break;
    deal(rank, static_cast<std::size_t>(open - items_.begin()), now);
    --idle;
  }
  // Whoever is being asked already will have work for one of the idle.
  for (const auto& who : workers_) idle -= who.dropping ? 1 : 0;
  for (int rank = 0; rank < std::ssize(workers_); ++rank) {
    auto& who = at(rank);
    if (who.works || !who.holds || who.dropping) continue;
    // A copy that stands half-way would hold up what may change its source.
    const bool copies = who.holds->kind == order_kind::gather;
    if (!copies && idle-- <= 0) continue;
    if (const auto at_ms = who.stands_since_ms + patience_with(*who.holds); now_ms < at_ms) {
      now.look_again_ms = now.look_again_ms == 0 ? at_ms : std::min(now.look_again_ms, at_ms);
      continue;
    }
    who.dropping = true;
    now.drop.push_back(rank);
  }
  return now;
}

}  // namespace tandem::train
