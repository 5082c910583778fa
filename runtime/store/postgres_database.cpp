#include "runtime/store/postgres_database.hpp"

#include "runtime/store/leadership.hpp"
#include "runtime/store/postgres_dialect.hpp"
#include "runtime/store/postgres_schema.hpp"

#include <fmt/format.h>

#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace tandem::store {
namespace {

using clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr auto connect_patience = 3s;  // of one statement, for the server to come back
constexpr auto refused_after = 500ms;  // with less than this, others do not even try
constexpr auto settle_patience = 3s;   // for the server to say how a transaction ended

}  // namespace

class postgres_run final : public statement_run {
 public:
  postgres_run(postgres_database& owner, std::string_view sql)
      : owner_(owner), sql_(postgres_statement(sql)) {}

  void bind_at(int index, std::int64_t value) override { put(index, std::to_string(value)); }
  void bind_at(int index, std::string_view value) override { put(index, postgres_text(value)); }
  result<bool> next() override {
    if (!rows_) {
      auto got = fetch();
      if (!got) return got.error();
      rows_.emplace(std::move(*got));
    }
    return ++row_ < rows_->count();
  }
  result<int> run() override {
    auto done = fetch();
    if (!done) return done.error();
    ensure(done->count() == 0, "a statement without rows gave one");
    return done->changed();
  }
  std::int64_t integer(int column) const override { return rows_->integer(row_, column); }
  std::string text(int column) const override { return rows_->text(row_, column); }

 private:
  void put(int index, std::string value) {
    if (values_.size() < static_cast<std::size_t>(index))
      values_.resize(static_cast<std::size_t>(index));
    values_[static_cast<std::size_t>(index - 1)] = std::move(value);
  }
  result<postgres_rows> fetch() {
    return owner_.ask([&](postgres_connection& on) { return on.run(sql_, values_); });
  }

  postgres_database& owner_;
  std::string sql_;
  std::vector<std::string> values_;
  std::optional<postgres_rows> rows_;
  int row_ = -1;
};

result<std::unique_ptr<postgres_database>> postgres_database::open(options how) {
  auto session = postgres_connection::open(how.url, 0ms);
  if (!session) return session.error();
  return std::make_unique<postgres_database>(std::move(how), *std::move(session));
}

query postgres_database::prepare(std::string_view sql) {
  return query(std::make_unique<postgres_run>(*this, sql));
}

result<void> postgres_database::execute(const std::string& sql) {
  auto done = ask([&](postgres_connection& on) { return on.execute(sql); });
  if (!done) return done.error();
  return {};
}

result<std::int64_t> postgres_database::schema_version() {
  auto row = ask([&](postgres_connection& on) { return on.execute(postgres_version_sql); });
  if (!row) return row.error();
  return row->count() == 0 ? 0 : row->integer(0, 0);
}

result<void> postgres_database::migrate(std::string_view ddl, std::int64_t version) {
  return execute(fmt::format("{}; {} {}", postgres_tables(ddl), postgres_set_version_sql, version));
}

std::string postgres_database::json_pair(std::string_view column, std::size_t key,
                                         std::size_t value) const {
  return fmt::format("CAST({} AS json) ->> CAST(?{} AS text) = ?{}", column, key, value);
}

// Bounded: a caller waits so long at most, and those behind it hear at once that there is nothing.
result<void> postgres_database::connect() {
  if (how_.sure && !how_.sure())
    return error{
        errc::unavailable,
        fmt::format("{} has not answered for seconds: another head may lead by now", name_),
        lead_unsure};
  if (session_ && session_->alive()) return {};
  if (clock::now() < not_before_)
    return error{errc::unavailable,
                 fmt::format("{}: no connection; the next try is under way soon", name_),
                 "store.url"};
  const auto deadline = clock::now() + connect_patience;
  for (int failures = 1;; ++failures) {
    auto opened = postgres_connection::open(how_.url, 0ms);
    if (opened) {
      session_ = *std::move(opened);
      return {};
    }
    const auto pause = pause_after(failures);
    if (clock::now() + pause >= deadline) {
      not_before_ = clock::now() + refused_after;
      return opened.error();
    }
    std::this_thread::sleep_for(pause);
  }
}

template <class Ask>
result<postgres_rows> postgres_database::ask(Ask how) {
  if (!in_transaction_) {
    if (auto connected = connect(); !connected) {
      lost_ = false;  // it has been tried for long enough
      return connected.error();
    }
  }
  auto rows = how(*session_);
  lost_ = !rows && !session_->alive();
  return rows;
}

result<void> postgres_database::begin(bool durable) {
  ensure(how_.epoch != 0, "a change by a head that leads");
  // Those that need not be durable are on disk a moment later. The row's lock makes one who takes
  // the lead wait for the end of this transaction.
  const auto sql = fmt::format("BEGIN;{} {}", durable ? "" : "SET LOCAL synchronous_commit = off;",
                               postgres_fence_sql(how_.epoch));
  auto fenced = ask([&](postgres_connection& on) { return on.execute(sql); });
  if (!fenced && lost_) fenced = ask([&](postgres_connection& on) { return on.execute(sql); });
  if (!fenced) {
    in_transaction_ = session_ && session_->alive();
    roll_back();
    return fenced.error();
  }
  in_transaction_ = true;
  if (fenced->count() == 0) return refuse();
  transaction_ = fenced->text(0, 0);
  return {};
}

error postgres_database::refuse() {
  roll_back();
  leader_look seen;
  if (auto row = ask([](postgres_connection& on) { return on.execute(postgres_leader_sql); });
      row && row->count() == 1)
    seen = postgres_leader(*row, 0);
  error why{errc::conflict, told_to_former(how_.epoch, seen), "store.url"};
  if (how_.refused) how_.refused(why);
  return why;
}

result<void> postgres_database::commit() {
  auto done = ask([](postgres_connection& on) { return on.execute("COMMIT"); });
  in_transaction_ = false;
  if (!done) return lost_ ? settle() : result<void>(done.error());
  if (done->outcome() == "COMMIT") return {};
  return error{
      errc::internal,
      fmt::format("{}: nothing of this change was kept: a statement of it had failed", name_),
      "store.url"};
}

// The answer to COMMIT was lost: another session knows how the transaction ended.
result<void> postgres_database::settle() {
  const auto deadline = clock::now() + settle_patience;
  const auto sql = fmt::format("SELECT pg_xact_status('{}')", transaction_);
  for (int tries = 1; clock::now() < deadline; ++tries) {
    auto row = ask([&](postgres_connection& on) { return on.execute(sql); });
    if (row && row->text(0, 0) == "committed") return {};
    if (row && row->text(0, 0) == "aborted")
      return error{errc::unavailable,
                   fmt::format("{}: the connection broke, and nothing of this change was kept: try "
                               "it again",
                               name_),
                   "store.url"};
    std::this_thread::sleep_for(pause_after(tries));
  }
  return error{
      errc::unavailable,
      fmt::format("{}: the connection broke while a change was being kept: it is not known "
                  "whether it was; look before it is tried again",
                  name_),
      "store.url"};
}

void postgres_database::roll_back() {
  if (!std::exchange(in_transaction_, false) || !session_ || !session_->alive()) return;
  const bool before = lost_;
  (void)session_->execute("ROLLBACK");
  lost_ = before;
}

}  // namespace tandem::store
