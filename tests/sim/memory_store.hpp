// A store without a disk, for simulated clusters: what survives the actors, not the process. It can
// fall silent, as a database does that is cut off from its head.
#pragma once

#include "runtime/lease/lease_store.hpp"
#include "runtime/store/leadership.hpp"
#include "runtime/store/store.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tandem::sim {

class memory_leases final : public lease::lease_store {
 public:
  explicit memory_leases(bool loses_writes) : loses_writes_(loses_writes) {}
  result<saved> load() const override {
    saved all{{}, newest_, {pins_.begin(), pins_.end()}};
    for (const auto& [device, held] : leases_) all.leases.push_back(held);
    return all;
  }
  result<void> save(const lease::lease& now) override {
    if (loses_writes_) return {};
    leases_.insert_or_assign(now.device, now);
    newest_ = std::max(newest_, now.at);
    return {};
  }
  result<void> forget(std::string_view device, lease::epoch newest) override {
    leases_.erase(std::string(device));
    newest_ = std::max(newest_, newest);
    return {};
  }
  result<void> pin(std::string_view device, std::optional<lease::role> as) override {
    if (as)
      pins_.insert_or_assign(std::string(device), *as);
    else
      pins_.erase(std::string(device));
    return {};
  }

 private:
  bool loses_writes_;
  std::map<std::string, lease::lease> leases_;
  std::map<std::string, lease::role> pins_;
  lease::epoch newest_ = 0;
};

class memory_store final : public store::store {
 public:
  using job_record = tandem::store::job_record;
  using job_status = tandem::store::job_status;

  memory_store(bool loses_leases, std::shared_ptr<const bool> silent)
      : leases_(std::make_shared<memory_leases>(loses_leases)), silent_(std::move(silent)) {}
  static error unsure() {
    return {errc::unavailable, "the store is silent", tandem::store::lead_unsure};
  }

  std::filesystem::path file_path(std::string_view) const override { return {}; }
  std::filesystem::path part_path() const override { return {}; }
  result<tandem::store::file_record> add_file(tandem::store::file_record,
                                              const std::filesystem::path&) override {
    return nothing();
  }
  result<tandem::store::file_record> find_file(std::string_view) const override {
    return nothing();
  }
  result<tandem::store::page<tandem::store::file_record>> list_files(std::string_view,
                                                                     std::string_view, int,
                                                                     bool) const override {
    return tandem::store::page<tandem::store::file_record>{};
  }
  result<void> remove_file(std::string_view) override { return nothing(); }

  result<job_record> add_job(job_record job) override {
    job.id = "ftjob-" + std::to_string(jobs_.size() + 1);
    jobs_.push_back(job);
    tell(job.id);
    return job;
  }
  result<job_record> find_job(std::string_view id) const override {
    if (*silent_) return unsure();
    for (const auto& job : jobs_)
      if (job.id == id) return job;
    return nothing();
  }
  result<tandem::store::page<job_record>> list_jobs(
      std::string_view, int, const tandem::store::job_filter&) const override {
    return tandem::store::page<job_record>{jobs_, false};
  }
  std::vector<job_record> unfinished_jobs() const override {
    if (*silent_) return {};
    auto open = jobs_;
    std::erase_if(open, [](const auto& job) { return is_final(job.status); });
    return open;
  }
  result<job_record> change_status(std::string_view id, std::vector<job_status> from,
                                   job_status to) override {
    if (*silent_) return unsure();
    auto* job = at(id);
    if (!job || is_final(job->status) ||
        std::find(from.begin(), from.end(), job->status) == from.end())
      return error{errc::conflict, std::string(id) + " is in another state", ""};
    job->status = to;
    auto now = *job;
    tell(now.id);
    return now;
  }
  result<job_record> fail_job(std::string_view id, const error& why) override {
    if (*silent_) return unsure();
    auto* job = at(id);
    if (!job || is_final(job->status)) return nothing();
    job->status = job_status::failed;
    job->error_message = why.detail;
    auto now = *job;
    tell(now.id);
    return now;
  }
  result<void> set_settings(std::string_view, std::string_view) override { return writable(); }
  result<void> set_progress(std::string_view id,
                            const tandem::store::job_progress& progress) override {
    if (*silent_) return unsure();
    if (auto* job = at(id)) job->step = progress.step;
    return {};
  }
  result<void> set_model(std::string_view id, std::string_view model) override {
    if (*silent_) return unsure();
    if (auto* job = at(id)) job->fine_tuned_model = model;
    return {};
  }
  result<void> add_result_file(std::string_view, std::string_view) override { return writable(); }
  result<void> add_event(tandem::store::event_record) override { return writable(); }
  result<tandem::store::page<tandem::store::event_record>> list_events(std::string_view,
                                                                       std::string_view,
                                                                       int) const override {
    return tandem::store::page<tandem::store::event_record>{};
  }
  result<std::vector<tandem::store::event_record>> events_since(std::string_view, std::int64_t,
                                                                int) const override {
    return std::vector<tandem::store::event_record>{};
  }
  result<void> add_checkpoint(tandem::store::checkpoint_record) override { return writable(); }
  result<tandem::store::page<tandem::store::checkpoint_record>> list_checkpoints(
      std::string_view, std::string_view, int) const override {
    return tandem::store::page<tandem::store::checkpoint_record>{};
  }
  result<void> remove_checkpoint(std::string_view, std::int64_t) override { return {}; }
  std::shared_ptr<lease::lease_store> leases() override { return leases_; }
  result<void> writable() override { return *silent_ ? result<void>(unsure()) : result<void>(); }

  int watch(std::function<void(const std::string& job)> listener) override {
    listener_ = std::move(listener);
    return 1;
  }
  void unwatch(int) override { listener_ = {}; }

 private:
  static error nothing() { return {errc::not_found, "a simulation has no such thing", ""}; }
  job_record* at(std::string_view id) {
    for (auto& job : jobs_)
      if (job.id == id) return &job;
    return nullptr;
  }
  void tell(const std::string& job) const {
    if (listener_) listener_(job);
  }

  std::vector<job_record> jobs_;
  std::function<void(const std::string&)> listener_;
  std::shared_ptr<memory_leases> leases_;
  std::shared_ptr<const bool> silent_;
};

}  // namespace tandem::sim
