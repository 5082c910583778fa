// The store over a database: two connections, one that writes and one that reads, each behind a
// lock of its own, so that the reader sees the last commit while the writer waits for the disk.
#pragma once

#include "runtime/store/database.hpp"
#include "runtime/store/store.hpp"

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

namespace tandem::store {

class sql_store final : public store, public std::enable_shared_from_this<sql_store> {
 public:
  // `held` keeps others out while it lives. It and `writer` are missing in a store that is only
  // looked at.
  sql_store(std::filesystem::path folder, std::shared_ptr<const void> held,
            std::unique_ptr<database> writer, std::unique_ptr<database> reader);
  // Removes the bytes of files that have no row, which a crash left.
  void tidy();

  std::filesystem::path file_path(std::string_view id) const override;
  std::filesystem::path part_path() const override;
  result<file_record> add_file(file_record file, const std::filesystem::path& from) override;
  result<file_record> find_file(std::string_view id) const override;
  result<page<file_record>> list_files(std::string_view purpose, std::string_view after, int limit,
                                       bool oldest_first) const override;
  result<void> remove_file(std::string_view id) override;

  result<job_record> add_job(job_record job) override;
  result<job_record> find_job(std::string_view id) const override;
  result<page<job_record>> list_jobs(std::string_view after, int limit,
                                     const job_filter& which) const override;
  std::vector<job_record> unfinished_jobs() const override;
  result<job_record> change_status(std::string_view id, std::vector<job_status> from,
                                   job_status to) override;
  result<job_record> fail_job(std::string_view id, const error& why) override;
  result<void> set_settings(std::string_view id, std::string_view settings_json) override;
  result<void> set_progress(std::string_view id, const job_progress& progress) override;
  result<void> set_model(std::string_view id, std::string_view fine_tuned_model) override;
  result<void> add_result_file(std::string_view id, std::string_view file) override;

  result<void> add_event(event_record event) override;
  result<page<event_record>> list_events(std::string_view job, std::string_view after,
                                         int limit) const override;
  result<std::vector<event_record>> events_since(std::string_view job, std::int64_t sequence,
                                                 int limit) const override;
  result<void> add_checkpoint(checkpoint_record checkpoint) override;
  result<page<checkpoint_record>> list_checkpoints(std::string_view job, std::string_view after,
                                                   int limit) const override;
  result<void> remove_checkpoint(std::string_view job, std::int64_t step) override;

  std::shared_ptr<lease::lease_store> leases() override;
  result<lease::lease_store::saved> load_leases() const;
  result<void> save_lease(const lease::lease& now);
  result<void> forget_lease(std::string_view device, lease::epoch newest);
  result<void> pin_device(std::string_view device, std::optional<lease::role> as);

  result<void> writable() override;
  int watch(std::function<void(const std::string& job)> listener) override;
  void unwatch(int number) override;

 private:
  // One transaction of the writer; a store that is only looked at refuses it.
  template <class Work>
  auto write(bool durable, Work work) -> decltype(work(std::declval<database&>())) {
    std::scoped_lock guard(writing_);
    if (!writer_)
      return error{errc::conflict, folder_.string() + " was opened to be looked at only", {}};
    return writer_->transaction(durable, [&] { return work(*writer_); });
  }
  template <class Work>
  auto read(Work work) const -> decltype(work(std::declval<database&>())) {
    std::scoped_lock guard(reading_);
    return reader_->look([&] { return work(*reader_); });
  }
  // A change of the one job with this id that has not ended.
  template <class Work>
  result<void> change_open_job(bool durable, std::string_view id, Work work);
  void tell(std::string_view job) const;
  result<void> reserve_epochs(lease::epoch at);

  std::filesystem::path folder_;
  std::shared_ptr<const void> held_;
  std::mutex writing_;
  std::unique_ptr<database> writer_;
  std::atomic<lease::epoch> reserved_epoch_{0};  // written durably; 0: nothing by this process
  mutable std::mutex reading_;
  std::unique_ptr<database> reader_;
  mutable std::mutex listening_;  // held while listeners run, so that unwatch waits for them
  std::map<int, std::function<void(const std::string&)>> listeners_;
  int next_listener_ = 1;
};

std::int64_t unix_seconds();
std::filesystem::path files_folder(const std::filesystem::path& folder);

}  // namespace tandem::store
