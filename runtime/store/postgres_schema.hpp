// The one row that PostgreSQL holds beside the store's own tables: whose database it is, the
// version of its tables, and who leads. Everything that reads or changes it stands here.
#pragma once

#include "runtime/store/leadership.hpp"
#include "runtime/store/postgres_connection.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::store {

// Locks of a session, (this, number): "tand" in ASCII.
inline constexpr int postgres_lock_space = 0x74616e64;
inline constexpr int postgres_leader_lock = 1;
inline constexpr int postgres_schema_lock = 2;

inline constexpr const char* postgres_version_sql = "SELECT schema_version FROM tandem_store";
inline constexpr const char* postgres_set_version_sql = "UPDATE tandem_store SET schema_version =";
// Columns as postgres_leader reads them.
inline constexpr const char* postgres_leader_sql =
    "SELECT leader_epoch, leader, to_char(led_since AT TIME ZONE 'UTC', "
    "'YYYY-MM-DD HH24:MI:SS \"UTC\"'), schema_version, id FROM tandem_store";

// The transaction's number while the head of `epoch` leads, else no row.
std::string postgres_fence_sql(std::int64_t epoch);
leader_look postgres_leader(const postgres_rows& rows, int row);
// Makes the row where there is none; two that do so at once make one.
result<void> make_postgres_row(postgres_connection& on);

}  // namespace tandem::store
