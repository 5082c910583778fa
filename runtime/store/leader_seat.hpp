// The lead of a database, held on a session of its own. The server ends that session as soon as
// this process dies, and when it hears nothing of it for `silent_max` (a process that is frozen or
// cut off): then another head may take the lead, and this one learns of it before it writes.
#pragma once

#include "runtime/store/leadership.hpp"
#include "runtime/store/postgres_connection.hpp"

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace tandem::store {

struct seat_options {
  std::string url;
  std::string called;  // how others know this head: HOST:PORT
  // Waits so long; false: the wait for the lead is over (cancelled).
  std::function<bool(std::chrono::milliseconds)> pause;
  std::function<void(const std::string& line)> tell;  // who leads instead, when that changes
  // Another head leads: nothing may be written any more. Called from a thread of the seat.
  std::function<void(const error&)> lost;
  std::chrono::milliseconds look_every{1000};
  std::chrono::milliseconds silent_max{5000};
};

class leader_seat {
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
  // From now on others are told this name.
  void call_it(std::string called);

 private:
  explicit leader_seat(seat_options how) : how_(std::move(how)) {}
  result<leader_look> look();
  result<void> count_up();
  result<void> tell_name();
  void keep();

  seat_options how_;
  std::unique_ptr<postgres_connection> session_;
  bool locked_ = false;  // by session_
  std::int64_t epoch_ = 0;
  std::string database_id_;
  std::string told_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  bool name_due_ = false;
  std::thread keeper_;
};

}  // namespace tandem::store
