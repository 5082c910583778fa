// The lead of a database, held on a session of its own. The server ends that session as soon as
// this process dies, and when it hears nothing of it for `silent_max` (a process that is frozen or
// cut off): then another head may take the lead, and this one learns of it before it writes.
#pragma once

#include "runtime/store/leadership.hpp"
#include "runtime/store/postgres_connection.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace tandem::store {

// What a head that leads knows of its lead.
struct lead_news {
  bool sure = true;  // false: the database has been silent for so long that another may lead
  std::vector<std::string> others;  // where nodes would join those who stand by
  bool operator==(const lead_news&) const = default;
};

struct seat_options {
  std::string url;
  std::string called;    // how others know this head: HOST:PORT
  std::string joins_at;  // where nodes would join it if it led; empty: nobody is told
  // Waits so long; false: the wait for the lead is over (cancelled).
  std::function<bool(std::chrono::milliseconds)> pause;
  std::function<void(const std::string& line)> tell;  // who leads instead, when that changes
  // Another head leads: nothing may be written any more. Called from a thread of the seat.
  std::function<void(const error&)> lost;
  std::chrono::milliseconds look_every{1000};
  std::chrono::milliseconds silent_max{5000};
};

class leader_seat {
  using clock = std::chrono::steady_clock;

 public:
  // Waits until this head leads. A database that cannot be used at all is refused at once.
  static result<std::unique_ptr<leader_seat>> take(seat_options how);
  leader_seat(const leader_seat&) = delete;
  leader_seat& operator=(const leader_seat&) = delete;
  // Gives the lead up: whoever stands by takes it at once.
  ~leader_seat();

  std::int64_t epoch() const { return epoch_; }
  // Of the database: 24 hexadecimal digits made with it.
  const std::string& database_id() const { return database_id_; }
  // The database has answered lately: nobody else can have taken the lead unseen. By the clock, not
  // by the seat's thread: a process that was frozen is unsure from its first instruction on.
  bool sure() const { return clock::now() - sure_at_.load() < how_.silent_max; }
  // From now on others are told this name.
  void call_it(std::string called);
  // Called from a thread of the seat, at once and with every change; null: no more, and none is
  // under way when this returns.
  void watch(std::function<void(const lead_news&)> watcher);

 private:
  explicit leader_seat(seat_options how) : how_(std::move(how)) {}
  result<leader_look> look();
  result<void> count_up();
  result<void> tell_name();
  void note_presence();
  void tell_watcher(std::optional<std::vector<std::string>> others);
  void keep();

  seat_options how_;
  std::unique_ptr<postgres_connection> session_;
  bool locked_ = false;  // by session_
  std::int64_t epoch_ = 0;
  std::string database_id_;
  clock::time_point noted_at_{};  // who stands by has written its row
  bool note_failed_ = false;
  std::atomic<clock::time_point> sure_at_{};  // read by any thread

  std::mutex watch_mutex_;
  std::function<void(const lead_news&)> watcher_;
  lead_news news_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  bool name_due_ = false;
  std::thread keeper_;
};

}  // namespace tandem::store
