#include "runtime/store/rows.hpp"

#include "runtime/store/sql_store.hpp"

#include <fmt/format.h>

namespace tandem::store {

result<std::int64_t> number_of(database& db, std::string_view table, std::string_view id,
                               std::string_view what) {
  auto found = db.prepare(fmt::format("SELECT number FROM {} WHERE id = ?1", table));
  auto row = found.bind(id).next();
  if (!row) return row.error();
  if (!*row) return error{errc::not_found, fmt::format("No such {}: {}", what, id), "id"};
  return found.integer(0);
}

result<std::int64_t> page_start(database& db, std::string_view table, std::string_view after) {
  if (after.empty()) return std::int64_t{INT64_MAX};
  auto key = table == "events" ? "sequence" : "number";
  auto found = db.prepare(fmt::format("SELECT {} FROM {} WHERE id = ?1", key, table));
  auto row = found.bind(after).next();
  if (!row) return row.error();
  if (!*row)
    return error{errc::bad_request,
                 fmt::format("after: this list has no '{}': give the id of its last row", after),
                 "after"};
  return found.integer(0);
}

result<job_record> job_from(database& db, const query& row) {
  job_record job;
  int column = 1;
  auto text = [&] { return row.text(column++); };
  auto integer = [&] { return row.integer(column++); };
  job.id = text();
  auto status = job_status_from(text());
  if (!status)
    return error{errc::bad_file,
                 fmt::format("{}: job {} is in an unknown state", db.name(), job.id), "store.url"};
  job.status = *status;
  job.model = text();
  job.training_file = text();
  job.validation_file = text();
  job.suffix = text();
  job.seed = integer();
  job.created_at = integer();
  job.finished_at = integer();
  job.fine_tuned_model = text();
  job.error_code = text();
  job.error_message = text();
  job.error_param = text();
  job.metadata_json = text();
  job.hyperparameters_json = text();
  job.own_json = text();
  job.settings_json = text();
  job.integrations_json = text();
  job.method = text();
  job.step = integer();
  job.step_count = integer();
  job.trained_tokens = integer();
  job.estimated_finish = integer();
  job.idempotency_key = text();
  auto files = db.prepare("SELECT file FROM result_files WHERE job = ?1 ORDER BY number");
  files.bind(row.integer(0));
  for (;;) {
    auto more = files.next();
    if (!more) return more.error();
    if (!*more) return job;
    job.result_files.push_back(files.text(0));
  }
}

result<job_record> job_with(database& db, std::string_view id) {
  auto found = db.prepare(fmt::format("SELECT number, {} FROM jobs WHERE id = ?1", job_columns));
  auto row = found.bind(id).next();
  if (!row) return row.error();
  if (!*row)
    return error{errc::not_found, fmt::format("Could not find fine tune: {}", id),
                 "fine_tuning_job_id"};
  return job_from(db, found);
}

result<void> insert_event(database& db, std::int64_t job_number, const event_record& event) {
  auto id = new_id("ftevent-");
  auto inserted = db.prepare(
                        "INSERT INTO events (id, job, created_at, level, type, message, data) "
                        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")
                      .bind(std::string_view(id), job_number, unix_seconds(),
                            std::string_view(event.level), std::string_view(event.type),
                            std::string_view(event.message), std::string_view(event.data_json))
                      .run();
  if (!inserted) return inserted.error();
  return {};
}

}  // namespace tandem::store
