// Jobs of the store. The rule: a change of state names the states it may leave, and the row is
// looked at within the transaction that changes it.
#include "runtime/store/job_status.hpp"
#include "runtime/store/rows.hpp"
#include "runtime/store/sql_store.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::store {
namespace {

error ended(const job_record& job) {
  return {errc::conflict,
          fmt::format("{} has ended already: it is {}", job.id, name_of(job.status)),
          {}};
}

result<void> file_is_there(database& db, std::string_view id, std::string_view param) {
  if (id.empty()) return {};
  auto number = number_of(db, "files", id, "File object");
  if (number) return {};
  auto why = number.error();
  if (why.code == errc::not_found) {
    why.detail = fmt::format("{}: there is no file '{}'", param, id);
    why.param = param;
  }
  return why;
}

result<std::int64_t> insert_job(database& db, const job_record& job) {
  auto t = [](const std::string& text) { return std::string_view(text); };
  auto inserted =
      db.prepare(fmt::format("INSERT INTO jobs ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, "
                             "?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, "
                             "?23, ?24)",
                             job_columns))
          .bind(t(job.id), name_of(job.status), t(job.model), t(job.training_file),
                t(job.validation_file), t(job.suffix), job.seed, job.created_at, job.finished_at,
                t(job.fine_tuned_model), t(job.error_code), t(job.error_message),
                t(job.error_param), t(job.metadata_json), t(job.hyperparameters_json),
                t(job.own_json), t(job.settings_json), t(job.integrations_json), t(job.method),
                job.step, job.step_count, job.trained_tokens, job.estimated_finish,
                t(job.idempotency_key))
          .run();
  if (!inserted) return inserted.error();
  return number_of(db, "jobs", job.id, "job");
}

// Moves `job` to `to`, with the event that tells it.
result<job_record> move(database& db, job_record job, job_status to, const error* why) {
  event_record event;
  event.message = told(job, to);
  if (why) {
    job.error_code = job_error_code(*why);
    job.error_message = why->detail;
    job.error_param = why->param;
    event.level = "error";
    event.message = why->detail;
  }
  job.status = to;
  if (is_final(to)) job.finished_at = unix_seconds();
  if (to != job_status::running) job.estimated_finish = 0;
  auto changed = db.prepare(
                       "UPDATE jobs SET status = ?2, finished_at = ?3, estimated_finish = ?4, "
                       "error_code = ?5, error_message = ?6, error_param = ?7 WHERE id = ?1")
                     .bind(std::string_view(job.id), name_of(to), job.finished_at,
                           job.estimated_finish, std::string_view(job.error_code),
                           std::string_view(job.error_message), std::string_view(job.error_param))
                     .run();
  if (!changed) return changed.error();
  auto number = number_of(db, "jobs", job.id, "job");
  if (!number) return number.error();
  if (auto inserted = insert_event(db, *number, event); !inserted) return inserted.error();
  return job;
}

// The values are ?3, ?4, ….
std::string filter_sql(const database& db, const job_filter& which) {
  std::string sql;
  if (which.without_metadata) sql += " AND metadata IN ('null', '{}')";
  for (std::size_t at = 0; at < which.metadata.size(); ++at)
    sql += " AND " + db.json_pair("metadata", 3 + 2 * at, 4 + 2 * at);
  return sql;
}

}  // namespace

result<job_record> sql_store::add_job(job_record job) {
  if (job.id.empty()) job.id = new_id("ftjob-");
  if (job.created_at == 0) job.created_at = unix_seconds();
  bool known = false;
  auto added = write(true, [&](database& db) -> result<job_record> {
    if (!job.idempotency_key.empty()) {
      auto same = db.prepare("SELECT id FROM jobs WHERE idempotency_key = ?1");
      auto row = same.bind(std::string_view(job.idempotency_key)).next();
      if (!row) return row.error();
      known = *row;
      if (known) return job_with(db, same.text(0));
    }
    if (auto is = file_is_there(db, job.training_file, "training_file"); !is) return is.error();
    if (auto is = file_is_there(db, job.validation_file, "validation_file"); !is) return is.error();
    auto number = insert_job(db, job);
    if (!number) return number.error();
    event_record event;
    event.message = fmt::format("Created fine-tuning job: {}", job.id);
    if (auto told = insert_event(db, *number, event); !told) return told.error();
    return job;
  });
  if (added && !known) tell(added->id);
  return added;
}

result<job_record> sql_store::find_job(std::string_view id) const {
  return read([&](database& db) { return job_with(db, id); });
}

result<page<job_record>> sql_store::list_jobs(std::string_view after, int limit,
                                              const job_filter& which) const {
  ensure(limit >= 1, "a page of no rows");
  return read([&](database& db) -> result<page<job_record>> {
    auto start = page_start(db, "jobs", after);
    if (!start) return start.error();
    auto rows = db.prepare(
        fmt::format("SELECT number, {} FROM jobs WHERE number < ?1{} ORDER BY number DESC LIMIT ?2",
                    job_columns, filter_sql(db, which)));
    rows.bind(*start, std::int64_t{limit} + 1);
    int index = 3;
    for (const auto& [key, value] : which.metadata) {
      rows.bind_at(index++, key);
      rows.bind_at(index++, value);
    }
    return page_of<job_record>(rows, limit, [&](const query& row) { return job_from(db, row); });
  });
}

std::vector<job_record> sql_store::unfinished_jobs() const {
  auto found = read([&](database& db) -> result<page<job_record>> {
    auto rows = db.prepare(fmt::format(
        "SELECT number, {} FROM jobs WHERE status NOT IN ('succeeded', 'failed', 'cancelled') "
        "ORDER BY number",
        job_columns));
    return page_of<job_record>(rows, INT32_MAX,
                               [&](const query& row) { return job_from(db, row); });
  });
  return found ? std::move(found->rows) : std::vector<job_record>();
}

result<job_record> sql_store::change_status(std::string_view id, std::vector<job_status> from,
                                            job_status to) {
  ensure(to != job_status::failed, "a job fails with a reason: fail_job");
  auto changed = write(true, [&](database& db) -> result<job_record> {
    auto job = job_with(db, id);
    if (!job) return job;
    if (is_final(job->status)) return ended(*job);
    if (std::find(from.begin(), from.end(), job->status) == from.end())
      return error{
          errc::conflict,
          fmt::format("{} is {} and cannot become {} now", id, name_of(job->status), name_of(to)),
          {}};
    return move(db, std::move(*job), to, nullptr);
  });
  if (changed) tell(id);
  return changed;
}

result<job_record> sql_store::fail_job(std::string_view id, const error& why) {
  auto failed = write(true, [&](database& db) -> result<job_record> {
    auto job = job_with(db, id);
    if (!job) return job;
    if (is_final(job->status)) return ended(*job);
    return move(db, std::move(*job), job_status::failed, &why);
  });
  if (failed) tell(id);
  return failed;
}

template <class Work>
result<void> sql_store::change_open_job(bool durable, std::string_view id, Work work) {
  auto changed = write(durable, [&](database& db) -> result<void> {
    auto job = job_with(db, id);
    if (!job) return job.error();
    if (is_final(job->status)) return ended(*job);
    return work(db);
  });
  if (changed) tell(id);
  return changed;
}

result<void> sql_store::set_settings(std::string_view id, std::string_view settings_json) {
  return change_open_job(true, id, [&](database& db) -> result<void> {
    auto set =
        db.prepare("UPDATE jobs SET settings = ?2 WHERE id = ?1").bind(id, settings_json).run();
    if (!set) return set.error();
    return {};
  });
}

result<void> sql_store::set_progress(std::string_view id, const job_progress& progress) {
  return change_open_job(false, id, [&](database& db) -> result<void> {
    auto set = db.prepare(
                     "UPDATE jobs SET step = ?2, step_count = ?3, trained_tokens = ?4, "
                     "estimated_finish = ?5 WHERE id = ?1")
                   .bind(id, progress.step, progress.step_count, progress.trained_tokens,
                         progress.estimated_finish)
                   .run();
    if (!set) return set.error();
    return {};
  });
}

result<void> sql_store::set_model(std::string_view id, std::string_view fine_tuned_model) {
  return change_open_job(true, id, [&](database& db) -> result<void> {
    auto set = db.prepare("UPDATE jobs SET fine_tuned_model = ?2 WHERE id = ?1")
                   .bind(id, fine_tuned_model)
                   .run();
    if (!set) return set.error();
    return {};
  });
}

result<void> sql_store::add_result_file(std::string_view id, std::string_view file) {
  return change_open_job(true, id, [&](database& db) -> result<void> {
    auto added = db.prepare(
                       "INSERT INTO result_files (job, file) "
                       "SELECT number, ?2 FROM jobs WHERE id = ?1 ON CONFLICT DO NOTHING")
                     .bind(id, file)
                     .run();
    if (!added) return added.error();
    return {};
  });
}

}  // namespace tandem::store
