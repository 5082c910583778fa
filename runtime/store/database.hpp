// SQLite as the store uses it: one connection, prepared statements kept by their text, errors as
// `result`. Not thread-safe: whoever owns a database holds a lock around each use.
#pragma once

#include "runtime/result.hpp"

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

struct sqlite3;
struct sqlite3_stmt;

namespace tandem::store {

class database;

// One run of a prepared statement; the statement is free for the next one when this is gone.
class query {
 public:
  query(const query&) = delete;
  query& operator=(const query&) = delete;
  query(query&& other) noexcept
      : owner_(other.owner_),
        statement_(std::exchange(other.statement_, nullptr)),
        failure_(other.failure_) {}
  ~query();

  // ?1, ?2, … in order. Text must outlive the run.
  template <class... Values>
  query& bind(const Values&... values) {
    int index = 0;
    (bind_at(++index, values), ...);
    return *this;
  }
  void bind_at(int index, std::int64_t value);
  void bind_at(int index, std::string_view value);
  // The next row: false when there is none (more).
  result<bool> next();
  // For statements without rows; gives how many rows they changed.
  result<int> run();

  std::int64_t integer(int column) const;
  std::string text(int column) const;

 private:
  friend class database;
  query(database& owner, sqlite3_stmt* statement, int failure)
      : owner_(&owner), statement_(statement), failure_(failure) {}

  database* owner_;
  sqlite3_stmt* statement_;
  int failure_;  // SQLite's code of a statement that could not be prepared or bound
};

class database {
 public:
  enum class access : std::uint8_t { read_write, read_only };
  static result<std::unique_ptr<database>> open(const std::filesystem::path& path, access how);
  // Closes `handle` in the end; open() makes it.
  database(std::filesystem::path path, sqlite3* handle) : path_(std::move(path)), handle_(handle) {}
  database(const database&) = delete;
  database& operator=(const database&) = delete;
  ~database();

  query prepare(std::string_view sql);
  result<void> execute(const std::string& sql);  // any number of statements without values
  const std::filesystem::path& path() const { return path_; }

  // Runs `work` as one transaction: all of it when it gives a value, nothing of it when it gives an
  // error. `durable`: on disk when this returns, with every commit before it; otherwise a power cut
  // may take it (and never a kill of this process).
  template <class Work>
  auto transaction(bool durable, Work work) -> decltype(work()) {
    if (auto begun = begin(durable); !begun) return begun.error();
    auto outcome = work();
    if (!outcome) {
      roll_back();
      return outcome;
    }
    if (auto committed = commit(); !committed) return committed.error();
    return outcome;
  }

 private:
  friend class query;
  error failed(int code) const;
  result<void> begin(bool durable);
  result<void> commit();
  void roll_back();

  std::filesystem::path path_;
  sqlite3* handle_;
  std::map<std::string, sqlite3_stmt*, std::less<>> statements_;
};

}  // namespace tandem::store
