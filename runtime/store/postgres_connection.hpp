// One session of a PostgreSQL server, with a deadline on everything: a server that is gone, cut off
// or frozen costs a few seconds, never a thread. A session that broke stays broken; whoever owns it
// opens another.
#pragma once

#include "runtime/result.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct pg_conn;
struct pg_result;

namespace tandem::store {

// What a statement gave.
class postgres_rows {
 public:
  explicit postgres_rows(pg_result* rows) : rows_(rows) {}
  int count() const;
  std::string text(int row, int column) const;
  std::int64_t integer(int row, int column) const;
  int changed() const;          // rows that it changed
  std::string outcome() const;  // "COMMIT", "ROLLBACK", "INSERT 0 1", …

 private:
  struct clear {
    void operator()(pg_result* rows) const;
  };
  std::unique_ptr<pg_result, clear> rows_;
};

class postgres_connection {
 public:
  // `silent_max`: the server ends the session when it hears nothing for so long; 0: never.
  static result<std::unique_ptr<postgres_connection>> open(const std::string& url,
                                                           std::chrono::milliseconds silent_max);
  postgres_connection(const postgres_connection&) = delete;
  postgres_connection& operator=(const postgres_connection&) = delete;
  ~postgres_connection();

  bool alive() const { return handle_ != nullptr; }
  // "postgresql://USER@HOST:PORT/DATABASE": no password.
  const std::string& name() const { return name_; }

  // Any number of statements without values; the rows of the last.
  result<postgres_rows> execute(const std::string& sql);
  // One statement with values for $1, $2, …, planned once a session.
  result<postgres_rows> run(std::string_view sql, const std::vector<std::string>& values);

 private:
  explicit postgres_connection(pg_conn* handle);
  result<void> greet(std::chrono::milliseconds silent_max);
  result<postgres_rows> answer(bool sent);
  error failed(const pg_result* rows);
  error broken(errc code, std::string_view what);

  pg_conn* handle_;
  std::string name_;
  std::map<std::string, std::string, std::less<>> planned_;
};

}  // namespace tandem::store
