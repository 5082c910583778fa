#include "runtime/store/schema.hpp"

#include <fmt/format.h>

#include <array>

namespace tandem::store {
namespace {

// In what SQLite reads and PostgreSQL's driver turns into its own (postgres_dialect).
//
// Version 1. `number` is the order of making and never used twice; ids are what clients see.
constexpr const char* first = R"(
CREATE TABLE files (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  filename TEXT NOT NULL,
  purpose TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  status TEXT NOT NULL,
  model TEXT NOT NULL,
  training_file TEXT NOT NULL,
  validation_file TEXT NOT NULL,
  suffix TEXT NOT NULL,
  seed INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  finished_at INTEGER NOT NULL,
  fine_tuned_model TEXT NOT NULL,
  error_code TEXT NOT NULL,
  error_message TEXT NOT NULL,
  error_param TEXT NOT NULL,
  metadata TEXT NOT NULL,
  hyperparameters TEXT NOT NULL,
  own TEXT NOT NULL,
  settings TEXT NOT NULL,
  integrations TEXT NOT NULL,
  method TEXT NOT NULL,
  step INTEGER NOT NULL,
  step_count INTEGER NOT NULL,
  trained_tokens INTEGER NOT NULL,
  estimated_finish INTEGER NOT NULL,
  idempotency_key TEXT NOT NULL
) STRICT;
CREATE INDEX jobs_by_status ON jobs (status);
CREATE UNIQUE INDEX jobs_by_key ON jobs (idempotency_key) WHERE idempotency_key <> '';
CREATE TABLE result_files (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  job INTEGER NOT NULL REFERENCES jobs (number),
  file TEXT NOT NULL,
  UNIQUE (job, file)
) STRICT;
CREATE TABLE events (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  job INTEGER NOT NULL REFERENCES jobs (number),
  created_at INTEGER NOT NULL,
  level TEXT NOT NULL,
  type TEXT NOT NULL,
  message TEXT NOT NULL,
  data TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_job ON events (job, sequence);
CREATE TABLE checkpoints (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  job INTEGER NOT NULL REFERENCES jobs (number),
  step INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  model TEXT NOT NULL,
  metrics TEXT NOT NULL,
  UNIQUE (job, step)
) STRICT;
)";

// Version 2: the coordinator's book. Epochs up to `reserved` may have been given out.
constexpr const char* second = R"(
CREATE TABLE leases (
  device TEXT PRIMARY KEY,
  role TEXT NOT NULL,
  holder TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  guest TEXT NOT NULL,
  serve_since INTEGER NOT NULL,
  train_since INTEGER NOT NULL
) STRICT;
CREATE TABLE lease_epoch (
  "only" INTEGER PRIMARY KEY CHECK ("only" = 1),
  reserved INTEGER NOT NULL
) STRICT;
CREATE TABLE pins (
  device TEXT PRIMARY KEY,
  role TEXT NOT NULL
) STRICT;
)";

constexpr std::array<const char*, schema_version> steps{first, second};

}  // namespace

error too_new(std::string_view name, std::int64_t version) {
  return {errc::unsupported,
          fmt::format("{} has schema version {}, and this tandem knows up to {}: it was written by "
                      "a newer tandem; use that one, or another store",
                      name, version, schema_version),
          "store.url"};
}

result<void> prepare_schema(database& db) {
  auto version = db.schema_version();
  if (!version) return version.error();
  if (*version > schema_version) return too_new(db.name(), *version);
  for (auto at = static_cast<std::size_t>(*version); at < steps.size(); ++at) {
    auto done = db.transaction(
        true, [&] { return db.migrate(steps[at], static_cast<std::int64_t>(at) + 1); });
    if (!done) return done;
  }
  return {};
}

result<void> check_schema(database& db) {
  auto version = db.schema_version();
  if (!version) return version.error();
  if (*version > schema_version) return too_new(db.name(), *version);
  if (*version == schema_version) return {};
  return error{errc::unsupported,
               fmt::format("{} has schema version {}, of an older tandem: start `tandem up` once, "
                           "which brings it to version {}",
                           db.name(), *version, schema_version),
               "store.url"};
}

}  // namespace tandem::store
