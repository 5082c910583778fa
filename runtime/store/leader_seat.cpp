#include "runtime/store/leader_seat.hpp"

#include "runtime/log.hpp"
#include "runtime/store/head_list.hpp"
#include "runtime/store/postgres_dialect.hpp"
#include "runtime/store/postgres_schema.hpp"
#include "runtime/store/schema.hpp"

#include <fmt/format.h>

#include <utility>

namespace tandem::store {
namespace {

using namespace std::chrono_literals;

constexpr auto stand_by_pause = 200ms;
constexpr auto note_every = 1s;

}  // namespace

result<std::unique_ptr<leader_seat>> leader_seat::take(seat_options how) {
  auto seat = std::unique_ptr<leader_seat>(new leader_seat(std::move(how)));
  std::string told_before;
  bool answered = false;
  for (int failures = 0;;) {
    auto seen = seat->look();
    // A server that goes away while we wait for the lead may come back.
    if (!seen && (!answered || seen.error().code == errc::unsupported)) return seen.error();
    answered = true;
    auto pause = pause_after(++failures);
    switch (next_step(0, seen ? *seen : leader_look{})) {
      case lead_step::take:
        if (auto counted = seat->count_up(); counted) {
          seat->sure_at_ = clock::now();
          seat->keeper_ = std::thread([at = seat.get()] { at->keep(); });
          return seat;
        }
        break;
      case lead_step::stand_by:
        failures = 0;
        pause = stand_by_pause;
        seat->note_presence();
        if (const auto line = told(*seen); line != told_before && seat->how_.tell)
          seat->how_.tell(told_before = line);
        break;
      default:
        break;
    }
    if (!seat->how_.pause(pause)) {
      if (seat->noted_at_ != clock::time_point{} && seat->session_ && seat->session_->alive())
        (void)forget_head(*seat->session_, seat->how_.joins_at);
      return error{errc::cancelled, "the wait for the lead was ended", ""};
    }
  }
}

leader_seat::~leader_seat() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
  if (keeper_.joinable()) keeper_.join();
}

void leader_seat::call_it(std::string called) {
  {
    const std::lock_guard lock(mutex_);
    how_.called = std::move(called);
    name_due_ = true;
  }
  changed_.notify_all();
}

// Opens the session if need be, and tries for the lock: once a session, for locks of a session add
// up.
result<leader_look> leader_seat::look() {
  if (!session_ || !session_->alive()) {
    locked_ = false;
    auto opened = postgres_connection::open(how_.url, how_.silent_max);
    if (!opened) return opened.error();
    session_ = *std::move(opened);
    if (auto made = make_postgres_row(*session_); !made) return made.error();
  }
  if (!locked_) {
    auto tried = session_->execute(fmt::format("SELECT pg_try_advisory_lock({}, {})",
                                               postgres_lock_space, postgres_leader_lock));
    if (!tried) return tried.error();
    locked_ = tried->text(0, 0) == "t";
  }
  auto row = session_->execute(postgres_leader_sql);
  if (!row) return row.error();
  if (row->count() != 1)
    return error{errc::bad_file, session_->name() + ": the row of tandem_store is gone",
                 "store.url"};
  if (const auto version = row->integer(0, 3); version > schema_version)
    return too_new(session_->name(), version);
  database_id_ = row->text(0, 4);
  auto seen = postgres_leader(*row, 0);
  seen.locked = locked_;
  return seen;
}

result<void> leader_seat::count_up() {
  auto counted = session_->run(
      "UPDATE tandem_store SET leader_epoch = leader_epoch + 1, leader = $1, led_since = now() "
      "RETURNING leader_epoch",
      {postgres_text(how_.called)});
  if (!counted) return counted.error();
  epoch_ = counted->integer(0, 0);
  (void)forget_head(*session_, how_.joins_at);  // it stands by no more
  return {};
}

// So that nodes hear of it. Who cannot write it stands by all the same.
void leader_seat::note_presence() {
  const auto now = clock::now();
  if (how_.joins_at.empty() || (noted_at_ != clock::time_point{} && now - noted_at_ < note_every))
    return;
  noted_at_ = now;
  if (auto noted = note_head(*session_, how_.joins_at);
      !noted && !std::exchange(note_failed_, true))
    log_warning("nodes are not told that this head stands by: {}", noted.error().detail);
}

void leader_seat::watch(std::function<void(const lead_news&)> watcher) {
  const std::lock_guard lock(watch_mutex_);
  watcher_ = std::move(watcher);
  if (watcher_) watcher_(news_);
}

// `others`: as the database says; nothing: it said nothing this time.
void leader_seat::tell_watcher(std::optional<std::vector<std::string>> others) {
  const std::lock_guard lock(watch_mutex_);
  auto now = news_;
  now.sure = sure();
  if (others) now.others = *std::move(others);
  if (now == news_) return;
  if (now.sure != news_.sure)
    now.sure ? log_info("the database answers again, and this head leads still")
             : log_warning(
                   "the database has not answered for {} ms: another head may lead by now; this "
                   "one goes on with the devices it has and takes in no others",
                   how_.silent_max.count());
  news_ = std::move(now);
  if (watcher_) watcher_(news_);
}

result<void> leader_seat::tell_name() {
  std::string called;
  {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(name_due_, false)) return {};
    called = how_.called;
  }
  auto told = session_->run("UPDATE tandem_store SET leader = $1 WHERE leader_epoch = $2",
                            {postgres_text(called), std::to_string(epoch_)});
  if (told) return {};
  const std::lock_guard lock(mutex_);
  name_due_ = true;
  return told.error();
}

void leader_seat::keep() {
  for (int failures = 0;;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, failures == 0 ? how_.look_every : pause_after(failures),
                        [&] { return ended_ || (name_due_ && failures == 0); });
      if (ended_) return;
    }
    const auto asked_at = clock::now();
    auto seen = look();
    std::optional<std::vector<std::string>> others;
    switch (next_step(epoch_, seen ? *seen : leader_look{})) {
      case lead_step::lead:
        failures = 0;
        sure_at_ = asked_at;
        if (auto there = heads_there(*session_, how_.joins_at)) others = *std::move(there);
        if (auto named = tell_name(); !named)
          log_warning("others do not know this head's name yet: {}", named.error().detail);
        break;
      case lead_step::give_up:
        if (how_.lost) how_.lost(error{errc::conflict, told_to_former(epoch_, *seen), "store.url"});
        return;
      default:
        if (failures++ == 0)
          log_warning("this head cannot tell whether it leads still: {}",
                      seen ? "another session holds the lock" : seen.error().detail);
    }
    tell_watcher(std::move(others));
  }
}

}  // namespace tandem::store
