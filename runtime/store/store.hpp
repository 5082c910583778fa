// What survives a crash: uploaded files, fine-tuning jobs, their events and checkpoints, in SQLite
// (WAL, one file under $TANDEM_HOME) or PostgreSQL (postgres_store.hpp). Every state change of a
// job is one transaction that checks the state it leaves, so a late writer can never undo a cancel,
// and that tells it in an event, so that whoever reads events knows all of them. Thread-safe:
// readers never wait for a disk's sync.
#pragma once

#include "runtime/lease/lease_store.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::store {

struct file_record {
  std::string id;  // "file-" and 24 hexadecimal digits
  std::string filename;
  std::string purpose;  // fine-tune, fine-tune-results, batch, assistants, user_data, …
  std::int64_t bytes = 0;
  std::int64_t created_at = 0;  // Unix seconds
  bool operator==(const file_record&) const = default;
};

enum class job_status : std::uint8_t {
  validating_files,
  queued,
  running,
  paused,
  succeeded,
  failed,
  cancelled
};
std::string_view name_of(job_status status);
std::optional<job_status> job_status_from(std::string_view name);
bool is_final(job_status status);

struct job_record {
  std::string id;  // "ftjob-" and 24 hexadecimal digits
  job_status status = job_status::validating_files;
  std::string model;  // the base as clients call it
  std::string training_file;
  std::string validation_file;  // empty: none
  std::string suffix;           // empty: none
  std::int64_t seed = 0;
  std::int64_t created_at = 0;
  std::int64_t finished_at = 0;  // 0: not yet
  std::string fine_tuned_model;  // set when the first version was published
  std::string error_code;        // of a failed job
  std::string error_message;
  std::string error_param;
  std::string metadata_json = "null";
  std::string hyperparameters_json = "null";  // as asked for
  std::string own_json = "null";              // "tandem", as asked for
  std::string settings_json = "null";         // train::shown_settings once settled
  std::string integrations_json = "null";
  std::string method = "supervised";
  std::vector<std::string> result_files;
  std::int64_t step = 0;  // optimizer steps done
  std::int64_t step_count = 0;
  std::int64_t trained_tokens = 0;
  std::int64_t estimated_finish = 0;  // Unix seconds; 0: unknown
  std::string idempotency_key;        // empty: none
  bool operator==(const job_record&) const = default;
};

struct event_record {
  std::string id;  // "ftevent-…"
  std::string job;
  std::int64_t sequence = 0;  // grows by one within the store
  std::int64_t created_at = 0;
  std::string level = "info";    // info, warn, error
  std::string type = "message";  // message, metrics
  std::string message;
  std::string data_json = "null";
};

struct checkpoint_record {
  std::string id;  // "ftckpt_…"
  std::string job;
  std::int64_t step = 0;
  std::int64_t created_at = 0;
  std::string model;  // "ft:…:ckpt-step-N"
  std::string metrics_json = "{}";
};

// A page of a list, newest first, as OpenAI's `after` and `limit` mean it: `after` is the id of a
// row (unknown: bad_request), empty for the first page; `limit` is at least 1.
template <class T>
struct page {
  std::vector<T> rows;
  bool has_more = false;
};

// Jobs whose metadata have all of these pairs; or those without any.
struct job_filter {
  std::vector<std::pair<std::string, std::string>> metadata;
  bool without_metadata = false;
};

struct job_progress {
  std::int64_t step = 0;
  std::int64_t step_count = 0;
  std::int64_t trained_tokens = 0;
  std::int64_t estimated_finish = 0;
};

class store {
 public:
  // `folder` holds tandem.sqlite and files/; made when missing. A database of a newer version, a
  // broken one, or one another process holds is refused with a line that says so.
  static result<std::shared_ptr<store>> open(const std::filesystem::path& folder);
  // A look beside a process that holds it (`tandem export`): everything that changes is refused
  // (conflict), and nothing is made where there is no store (not_found).
  static result<std::shared_ptr<store>> open_read_only(const std::filesystem::path& folder);
  virtual ~store() = default;

  // --- files: a row here and the bytes under files/<id> -----------------------------------------
  virtual std::filesystem::path file_path(std::string_view id) const = 0;
  // A new name beside them to write a file to; what is left there by a crash is gone at the next
  // start.
  virtual std::filesystem::path part_path() const = 0;
  // The bytes lie at `from`, which is renamed (synced) into place, or copied from another disk. The
  // id (when empty), time (when 0) and bytes are set here.
  virtual result<file_record> add_file(file_record file, const std::filesystem::path& from) = 0;
  virtual result<file_record> find_file(std::string_view id) const = 0;
  virtual result<page<file_record>> list_files(std::string_view purpose, std::string_view after,
                                               int limit, bool oldest_first) const = 0;
  // Refused (conflict) while a job that has not ended needs it.
  virtual result<void> remove_file(std::string_view id) = 0;

  // --- jobs -------------------------------------------------------------------------------------
  // A known idempotency key gives the job made with it. Its files must be there (not_found). The id
  // (when empty) and the time (when 0) are set here, and the first event is written.
  virtual result<job_record> add_job(job_record job) = 0;
  virtual result<job_record> find_job(std::string_view id) const = 0;
  virtual result<page<job_record>> list_jobs(std::string_view after, int limit,
                                             const job_filter& which = {}) const = 0;
  virtual std::vector<job_record> unfinished_jobs() const = 0;  // oldest first
  // From one of `from` to `to`, else conflict with the state it is in; an ended state is never
  // left, even when named. Ended states set finished_at. The event that tells it is part of the
  // transaction: callers write none.
  virtual result<job_record> change_status(std::string_view id, std::vector<job_status> from,
                                           job_status to) = 0;
  // From anything but an ended state to failed; the reason is also an event of level "error".
  virtual result<job_record> fail_job(std::string_view id, const error& why) = 0;
  // These change a job that has not ended, and are refused (conflict) for one that has. Progress
  // and events are not synced each: a power cut (never a kill) may take the last ones.
  virtual result<void> set_settings(std::string_view id, std::string_view settings_json) = 0;
  virtual result<void> set_progress(std::string_view id, const job_progress& progress) = 0;
  virtual result<void> set_model(std::string_view id, std::string_view fine_tuned_model) = 0;
  virtual result<void> add_result_file(std::string_view id, std::string_view file) = 0;

  virtual result<void> add_event(event_record event) = 0;  // id, sequence and time are given here
  // Newest first, older than the event `after` (empty: from the newest).
  virtual result<page<event_record>> list_events(std::string_view job, std::string_view after,
                                                 int limit) const = 0;
  // Oldest first, from `sequence` on: for event streams and loss curves.
  virtual result<std::vector<event_record>> events_since(std::string_view job,
                                                         std::int64_t sequence,
                                                         int limit) const = 0;
  // Id and time are given here; a step that is there already (done again after a crash) keeps its
  // id and takes the new metrics.
  virtual result<void> add_checkpoint(checkpoint_record checkpoint) = 0;
  virtual result<page<checkpoint_record>> list_checkpoints(std::string_view job,
                                                           std::string_view after,
                                                           int limit) const = 0;
  // A checkpoint whose folder was removed.
  virtual result<void> remove_checkpoint(std::string_view job, std::int64_t step) = 0;

  // --- the coordinator's book of leases; it keeps the store alive --------------------------------
  virtual std::shared_ptr<lease::lease_store> leases() = 0;

  // Before something is written beside the store that belongs to it (a checkpoint): refused
  // (conflict) when another head leads, and (unavailable, lead_unsure) when nobody says who does.
  virtual result<void> writable() = 0;

  // Called after each committed change of a job or its events, from the thread that made it; must
  // not call back into the store. Returns a number for `unwatch`.
  virtual int watch(std::function<void(const std::string& job)> listener) = 0;
  virtual void unwatch(int number) = 0;
};

// `prefix` ("ftjob-") and 24 hexadecimal digits nobody can guess.
std::string new_id(std::string_view prefix);

}  // namespace tandem::store
