// The seam under the store: prepared statements, transactions and errors as `result`, over SQLite
// or PostgreSQL. Statements are written once, in what both understand; values are ?1, ?2, …. Not
// thread-safe: whoever owns a database holds a lock around each use.
#pragma once

#include "runtime/result.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace tandem::store {

// A driver's half of a query.
class statement_run {
 public:
  virtual ~statement_run() = default;
  virtual void bind_at(int index, std::int64_t value) = 0;
  virtual void bind_at(int index, std::string_view value) = 0;
  virtual result<bool> next() = 0;
  virtual result<int> run() = 0;
  virtual std::int64_t integer(int column) const = 0;
  virtual std::string text(int column) const = 0;
};

// One run of a prepared statement; the statement is free for the next one when this is gone.
class query {
 public:
  explicit query(std::unique_ptr<statement_run> driver) : driver_(std::move(driver)) {}

  // ?1, ?2, … in order. Text must outlive the run.
  template <class... Values>
  query& bind(const Values&... values) {
    int index = 0;
    (driver_->bind_at(++index, values), ...);
    return *this;
  }
  void bind_at(int index, std::string_view value) { driver_->bind_at(index, value); }
  // The next row: false when there is none (more).
  result<bool> next() { return driver_->next(); }
  // For statements without rows; gives how many rows they changed.
  result<int> run() { return driver_->run(); }

  std::int64_t integer(int column) const { return driver_->integer(column); }
  std::string text(int column) const { return driver_->text(column); }

 private:
  std::unique_ptr<statement_run> driver_;
};

class database {
 public:
  database() = default;
  database(const database&) = delete;
  database& operator=(const database&) = delete;
  virtual ~database() = default;

  virtual query prepare(std::string_view sql) = 0;
  virtual result<void> execute(const std::string& sql) = 0;  // any number, without values
  // What people call it; without a password.
  virtual std::string name() const = 0;

  virtual result<std::int64_t> schema_version() = 0;  // 0: empty
  // Makes or changes tables: `ddl` as SQLite reads it. Within a transaction.
  virtual result<void> migrate(std::string_view ddl, std::int64_t version) = 0;
  // Holds when the JSON object in `column` has the pair that ?key and ?value name.
  virtual std::string json_pair(std::string_view column, std::size_t key,
                                std::size_t value) const = 0;

  // Runs `work` as one transaction: all of it when it gives a value, nothing of it when it gives an
  // error. `durable`: on disk when this returns, with every commit before it; otherwise a power cut
  // of the database's machine may take it (and never a kill of this process). Work that a lost
  // connection cut off has changed nothing yet and runs once more.
  template <class Work>
  auto transaction(bool durable, Work work) -> decltype(work()) {
    for (bool again = true;; again = false) {
      if (auto begun = begin(durable); !begun) return begun.error();
      auto outcome = work();
      if (!outcome) {
        const bool cut_off = lost();
        roll_back();
        if (again && cut_off) continue;
        return outcome;
      }
      if (auto committed = commit(); !committed) return committed.error();
      return outcome;
    }
  }
  // Reads only: once more when the connection was lost.
  template <class Work>
  auto look(Work work) -> decltype(work()) {
    auto outcome = work();
    return !outcome && lost() ? work() : outcome;
  }

 protected:
  virtual result<void> begin(bool durable) = 0;
  virtual result<void> commit() = 0;
  virtual void roll_back() = 0;
  // The last statement found its connection gone.
  virtual bool lost() const = 0;
};

}  // namespace tandem::store
