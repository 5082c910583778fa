// The tables, and how a database of an older version becomes one of this version. Each
// step is one transaction.
#pragma once

#include "runtime/result.hpp"
#include "runtime/store/database.hpp"

#include <cstdint>
#include <string_view>

namespace tandem::store {

inline constexpr int schema_version = 2;

// Brings an opened database to `schema_version`; a newer one is refused (unsupported), a broken one
// too (bad_file).
result<void> prepare_schema(database& db);
// For readers: the version must be ours already.
result<void> check_schema(database& db);
error too_new(std::string_view name, std::int64_t version);

}  // namespace tandem::store
