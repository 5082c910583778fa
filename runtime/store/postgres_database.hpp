// PostgreSQL as the store uses it: a session that is opened again when it broke, and transactions
// that change nothing unless this head still leads.
#pragma once

#include "runtime/store/database.hpp"
#include "runtime/store/postgres_connection.hpp"

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace tandem::store {

class postgres_database final : public database {
 public:
  struct options {
    std::string url;
    std::int64_t epoch = 0;  // every transaction is refused once another head leads
    std::function<void(const error&)> refused;  // told of that
    // False: the database has been silent for so long that another head may lead. Then nothing is
    // tried: callers would wait for seconds each, and hear nothing new. Empty: always sure.
    std::function<bool()> sure = {};
  };
  static result<std::unique_ptr<postgres_database>> open(options how);
  postgres_database(options how, std::unique_ptr<postgres_connection> session)
      : how_(std::move(how)), session_(std::move(session)), name_(session_->name()) {}

  query prepare(std::string_view sql) override;
  result<void> execute(const std::string& sql) override;
  std::string name() const override { return name_; }
  result<std::int64_t> schema_version() override;
  result<void> migrate(std::string_view ddl, std::int64_t version) override;
  std::string json_pair(std::string_view column, std::size_t key, std::size_t value) const override;

 private:
  friend class postgres_run;
  result<void> connect();
  // Runs `ask` on a session; outside a transaction a broken one is opened again first.
  template <class Ask>
  result<postgres_rows> ask(Ask ask);
  error refuse();
  result<void> settle();

  result<void> begin(bool durable) override;
  result<void> commit() override;
  void roll_back() override;
  bool lost() const override { return lost_; }

  options how_;
  std::unique_ptr<postgres_connection> session_;
  std::string name_;
  bool in_transaction_ = false;
  bool lost_ = false;
  std::string transaction_;  // its number, to ask for when the answer to COMMIT is lost
  std::chrono::steady_clock::time_point not_before_{};  // after tries that failed: refused at once
};

}  // namespace tandem::store
