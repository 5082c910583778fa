#include "runtime/store/postgres_schema.hpp"

#include "runtime/store/head_list.hpp"
#include "runtime/store/store.hpp"

#include <fmt/format.h>

namespace tandem::store {

std::string postgres_fence_sql(std::int64_t epoch) {
  return fmt::format(
      "SELECT pg_current_xact_id() FROM tandem_store WHERE leader_epoch = {} FOR SHARE", epoch);
}

leader_look postgres_leader(const postgres_rows& rows, int row) {
  leader_look seen;
  seen.answered = true;
  seen.epoch = rows.integer(row, 0);
  seen.leader = rows.text(row, 1);
  seen.since = rows.text(row, 2);
  return seen;
}

result<void> make_postgres_row(postgres_connection& on) {
  // A look first: a user without the right to make tables may stand by.
  auto there = on.execute(
      "SELECT to_regclass('tandem_store') IS NOT NULL AND to_regclass('tandem_heads') IS NOT NULL");
  if (!there) return there.error();
  if (there->text(0, 0) == "t") {
    auto row = on.execute(postgres_version_sql);
    if (!row) return row.error();
    if (row->count() == 1) return {};
  }
  // One query text is one transaction.
  auto made = on.execute(fmt::format(
      "SELECT pg_advisory_xact_lock({}, {});"
      "CREATE TABLE IF NOT EXISTS tandem_store ("
      " only_row INTEGER PRIMARY KEY CHECK (only_row = 1), id TEXT NOT NULL,"
      " schema_version BIGINT NOT NULL, leader_epoch BIGINT NOT NULL, leader TEXT NOT NULL,"
      " led_since TIMESTAMPTZ NOT NULL);"
      "INSERT INTO tandem_store VALUES (1, '{}', 0, 0, '', now()) ON CONFLICT DO NOTHING; {}",
      postgres_lock_space, postgres_schema_lock, new_id(""), make_head_list_sql));
  if (!made) return made.error();
  return {};
}

}  // namespace tandem::store
