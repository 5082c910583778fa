// Which heads stand by on a database: one row each, with the address at which nodes would join it
// and when it was last there, by the server's clock. Those who wait write their own; the one that
// leads reads them and tells its nodes.
#pragma once

#include "runtime/store/postgres_connection.hpp"

#include <string>
#include <vector>

namespace tandem::store {

inline constexpr int heads_listed_max = 64;

inline constexpr const char* make_head_list_sql =
    "CREATE TABLE IF NOT EXISTS tandem_heads (joins_at TEXT PRIMARY KEY, seen TIMESTAMPTZ NOT "
    "NULL)";

// From now on this head is there, for some seconds.
result<void> note_head(postgres_connection& on, const std::string& joins_at);
result<void> forget_head(postgres_connection& on, const std::string& joins_at);
// Those that are there but for `own`, in order; the first `heads_listed_max`.
result<std::vector<std::string>> heads_there(postgres_connection& on, const std::string& own);

}  // namespace tandem::store
