// Records from and to rows: the column lists and their readers stand side by side.
#pragma once

#include "runtime/store/database.hpp"
#include "runtime/store/store.hpp"

#include <string>
#include <string_view>

namespace tandem::store {

// The number of the row with this id in `table`; not_found with what `what` calls it.
result<std::int64_t> number_of(database& db, std::string_view table, std::string_view id,
                               std::string_view what);
// Where the page after `after` begins: rows newer than this are left out. bad_request for an
// unknown id.
result<std::int64_t> page_start(database& db, std::string_view table, std::string_view after);

inline constexpr std::string_view job_columns =
    "id, status, model, training_file, validation_file, suffix, seed, created_at, "
    "finished_at, fine_tuned_model, error_code, error_message, error_param, metadata, "
    "hyperparameters, own, settings, integrations, method, step, step_count, trained_tokens, "
    "estimated_finish, idempotency_key";
// The row a query of number and job_columns stands on, with its result files.
result<job_record> job_from(database& db, const query& row);
result<job_record> job_with(database& db, std::string_view id);

// Adds an event within a transaction; id, sequence and time are set.
result<void> insert_event(database& db, std::int64_t job_number, const event_record& event);

// Takes up to limit rows of `rows`, one more means that there are more.
template <class Record, class Read>
result<page<Record>> page_of(query& rows, int limit, Read read) {
  page<Record> out;
  for (;;) {
    auto row = rows.next();
    if (!row) return row.error();
    if (!*row) return out;
    if (static_cast<int>(out.rows.size()) == limit) {
      out.has_more = true;
      return out;
    }
    result<Record> record = read(rows);
    if (!record) return record.error();
    out.rows.push_back(std::move(*record));
  }
}

}  // namespace tandem::store
