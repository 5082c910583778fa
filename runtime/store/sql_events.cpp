// What a job says while it runs: events and checkpoints of the store.
#include "runtime/store/rows.hpp"
#include "runtime/store/sql_store.hpp"

#include <fmt/format.h>

namespace tandem::store {
namespace {

constexpr std::string_view event_columns = "id, sequence, created_at, level, type, message, data";
constexpr std::string_view checkpoint_columns = "id, step, created_at, model, metrics";

result<event_record> event_from(const query& row, std::string_view job) {
  return event_record{row.text(0), std::string(job), row.integer(1), row.integer(2),
                      row.text(3), row.text(4),      row.text(5),    row.text(6)};
}

result<std::int64_t> job_number(database& db, std::string_view id) {
  auto number = number_of(db, "jobs", id, "job");
  if (number || number.error().code != errc::not_found) return number;
  return error{errc::not_found, fmt::format("Could not find fine tune: {}", id),
               "fine_tuning_job_id"};
}

}  // namespace

result<void> sql_store::add_event(event_record event) {
  auto added = write(false, [&](database& db) -> result<void> {
    auto number = job_number(db, event.job);
    if (!number) return number.error();
    return insert_event(db, *number, event);
  });
  if (added) tell(event.job);
  return added;
}

result<page<event_record>> sql_store::list_events(std::string_view job, std::string_view after,
                                                  int limit) const {
  ensure(limit >= 1, "a page of no rows");
  return read([&](database& db) -> result<page<event_record>> {
    auto number = job_number(db, job);
    if (!number) return number.error();
    auto start = page_start(db, "events", after);
    if (!start) return start.error();
    auto rows = db.prepare(fmt::format(
        "SELECT {} FROM events WHERE job = ?1 AND sequence < ?2 ORDER BY sequence DESC LIMIT ?3",
        event_columns));
    rows.bind(*number, *start, std::int64_t{limit} + 1);
    return page_of<event_record>(rows, limit,
                                 [&](const query& row) { return event_from(row, job); });
  });
}

result<std::vector<event_record>> sql_store::events_since(std::string_view job,
                                                          std::int64_t sequence, int limit) const {
  ensure(limit >= 1, "no events asked for");
  return read([&](database& db) -> result<std::vector<event_record>> {
    auto number = job_number(db, job);
    if (!number) return number.error();
    auto rows = db.prepare(fmt::format(
        "SELECT {} FROM events WHERE job = ?1 AND sequence >= ?2 ORDER BY sequence LIMIT ?3",
        event_columns));
    rows.bind(*number, sequence, std::int64_t{limit});
    auto found =
        page_of<event_record>(rows, limit, [&](const query& row) { return event_from(row, job); });
    if (!found) return found.error();
    return std::move(found->rows);
  });
}

result<void> sql_store::add_checkpoint(checkpoint_record checkpoint) {
  auto added = write(true, [&](database& db) -> result<void> {
    auto number = job_number(db, checkpoint.job);
    if (!number) return number.error();
    auto id = new_id("ftckpt_");
    auto inserted =
        db.prepare(
              "INSERT INTO checkpoints (id, job, step, created_at, model, metrics) "
              "VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (job, step) DO UPDATE SET "
              "created_at = excluded.created_at, model = excluded.model, "
              "metrics = excluded.metrics")
            .bind(std::string_view(id), *number, checkpoint.step, unix_seconds(),
                  std::string_view(checkpoint.model), std::string_view(checkpoint.metrics_json))
            .run();
    if (!inserted) return inserted.error();
    return {};
  });
  if (added) tell(checkpoint.job);
  return added;
}

result<page<checkpoint_record>> sql_store::list_checkpoints(std::string_view job,
                                                            std::string_view after,
                                                            int limit) const {
  ensure(limit >= 1, "a page of no rows");
  return read([&](database& db) -> result<page<checkpoint_record>> {
    auto number = job_number(db, job);
    if (!number) return number.error();
    auto start = page_start(db, "checkpoints", after);
    if (!start) return start.error();
    auto rows = db.prepare(fmt::format(
        "SELECT {} FROM checkpoints WHERE job = ?1 AND number < ?2 ORDER BY number DESC LIMIT ?3",
        checkpoint_columns));
    rows.bind(*number, *start, std::int64_t{limit} + 1);
    return page_of<checkpoint_record>(
        rows, limit, [&](const query& row) -> result<checkpoint_record> {
          return checkpoint_record{row.text(0),    std::string(job), row.integer(1),
                                   row.integer(2), row.text(3),      row.text(4)};
        });
  });
}

result<void> sql_store::remove_checkpoint(std::string_view job, std::int64_t step) {
  auto removed = write(true, [&](database& db) -> result<void> {
    auto number = job_number(db, job);
    if (!number) return number.error();
    auto gone = db.prepare("DELETE FROM checkpoints WHERE job = ?1 AND step = ?2")
                    .bind(*number, step)
                    .run();
    if (!gone) return gone.error();
    return {};
  });
  if (removed) tell(job);
  return removed;
}

}  // namespace tandem::store
