// A store without a disk, for simulated clusters: a database that survives the processes, and what
// one head has of it. A head can be cut off from it; one that no longer leads may not write, as in
// runtime/store/leadership.hpp.
#pragma once

#include "runtime/lease/lease_store.hpp"
#include "runtime/store/leadership.hpp"
#include "runtime/store/store.hpp"

#include <caf/actor_clock.hpp>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tandem::sim {

struct memory_database {
  using time_point = caf::actor_clock::time_point;

  // Who leads: the newest epoch, the session that holds the lock (0: none) and when it was heard.
  std::int64_t lead = 0;
  std::uint64_t session = 0;
  std::uint64_t sessions = 0;  // counts them
  time_point heard{};

  std::vector<tandem::store::job_record> jobs;
  std::map<std::string, lease::lease> leases;
  std::map<std::string, lease::role> pins;
  lease::epoch newest = 0;
  std::map<lease::epoch, std::int64_t> lent_in;  // the lead in which a lease was written

  // Broken on purpose.
  bool loses_leases = false;
  bool fence_unchecked = false;
};

// A head's way to the database, in the epoch of its lead.
struct database_access {
  std::int64_t lead = 0;
  bool cut = false;               // it does not answer
  bool reads_cut = false;         // nor does it on the other connection, which only reads
  std::function<bool()> sure;     // it has answered lately
  std::function<void()> refused;  // another head leads
};

class database_session {
 public:
  database_session(std::shared_ptr<memory_database> database,
                   std::shared_ptr<const database_access> how)
      : database_(std::move(database)), how_(std::move(how)) {}
  memory_database& on() const { return *database_; }
  std::int64_t lead() const { return how_->lead; }
  // A look gets an answer, or is refused (unavailable) in the words of postgres_database::connect.
  result<void> answers() const { return answers(how_->reads_cut); }
  // This head may change something.
  result<void> admits() const {
    if (auto answered = answers(how_->cut); !answered) return answered;
    if (database_->lead == how_->lead || database_->fence_unchecked) return {};
    if (how_->refused) how_->refused();
    return error{errc::conflict, "another head leads", "store.url"};
  }

 private:
  result<void> answers(bool cut) const {
    if (!how_->sure())
      return error{errc::unavailable, "the store is silent: another head may lead by now",
                   tandem::store::lead_unsure};
    if (cut) return error{errc::unavailable, "no connection to the store", "store.url"};
    return {};
  }

  std::shared_ptr<memory_database> database_;
  std::shared_ptr<const database_access> how_;
};

class memory_leases final : public lease::lease_store {
 public:
  explicit memory_leases(database_session session) : session_(std::move(session)) {}
  result<saved> load() const override {
    if (auto answered = session_.answers(); !answered) return answered.error();
    const auto& on = session_.on();
    saved all{{}, on.newest, {on.pins.begin(), on.pins.end()}};
    for (const auto& [device, held] : on.leases) all.leases.push_back(held);
    return all;
  }
  result<void> save(const lease::lease& now) override {
    auto& on = session_.on();
    if (auto admitted = session_.admits(); !admitted || on.loses_leases) return admitted;
    on.leases.insert_or_assign(now.device, now);
    on.newest = std::max(on.newest, now.at);
    on.lent_in[now.at] = session_.lead();
    return {};
  }
  result<void> forget(std::string_view device, lease::epoch newest) override {
    if (auto admitted = session_.admits(); !admitted) return admitted;
    session_.on().leases.erase(std::string(device));
    session_.on().newest = std::max(session_.on().newest, newest);
    return {};
  }
  result<void> pin(std::string_view device, std::optional<lease::role> as) override {
    if (auto admitted = session_.admits(); !admitted) return admitted;
    auto& pins = session_.on().pins;
    as ? void(pins.insert_or_assign(std::string(device), *as))
       : void(pins.erase(std::string(device)));
    return {};
  }

 private:
  database_session session_;
};

class memory_store final : public store::store {
 public:
  using job_record = tandem::store::job_record;
  using job_status = tandem::store::job_status;

  memory_store(std::shared_ptr<memory_database> database,
               std::shared_ptr<const database_access> how)
      : session_(std::move(database), std::move(how)),
        leases_(std::make_shared<memory_leases>(session_)) {}
  std::int64_t lead() const { return session_.lead(); }

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
    if (auto admitted = session_.admits(); !admitted) return admitted.error();
    auto& jobs = session_.on().jobs;
    job.id = "ftjob-" + std::to_string(jobs.size() + 1);
    jobs.push_back(job);
    tell(job.id);
    return job;
  }
  result<job_record> find_job(std::string_view id) const override {
    if (auto answered = session_.answers(); !answered) return answered.error();
    for (const auto& job : session_.on().jobs)
      if (job.id == id) return job;
    return nothing();
  }
  result<tandem::store::page<job_record>> list_jobs(
      std::string_view, int, const tandem::store::job_filter&) const override {
    if (auto answered = session_.answers(); !answered) return answered.error();
    return tandem::store::page<job_record>{session_.on().jobs, false};
  }
  std::vector<job_record> unfinished_jobs() const override {
    if (!session_.answers()) return {};
    auto open = session_.on().jobs;
    std::erase_if(open, [](const auto& job) { return is_final(job.status); });
    return open;
  }
  result<job_record> change_status(std::string_view id, std::vector<job_status> from,
                                   job_status to) override {
    if (auto admitted = session_.admits(); !admitted) return admitted.error();
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
    if (auto admitted = session_.admits(); !admitted) return admitted.error();
    auto* job = at(id);
    if (!job || is_final(job->status)) return nothing();
    job->status = job_status::failed;
    job->error_message = why.detail;
    auto now = *job;
    tell(now.id);
    return now;
  }
  result<void> set_settings(std::string_view, std::string_view) override {
    return session_.admits();
  }
  result<void> set_progress(std::string_view id,
                            const tandem::store::job_progress& progress) override {
    if (auto admitted = session_.admits(); !admitted) return admitted.error();
    if (auto* job = at(id)) job->step = progress.step;
    return {};
  }
  result<void> set_model(std::string_view id, std::string_view model) override {
    if (auto admitted = session_.admits(); !admitted) return admitted.error();
    if (auto* job = at(id)) job->fine_tuned_model = model;
    return {};
  }
  result<void> add_result_file(std::string_view, std::string_view) override {
    return session_.admits();
  }
  result<void> add_event(tandem::store::event_record) override { return session_.admits(); }
  result<tandem::store::page<tandem::store::event_record>> list_events(std::string_view,
                                                                       std::string_view,
                                                                       int) const override {
    return tandem::store::page<tandem::store::event_record>{};
  }
  result<std::vector<tandem::store::event_record>> events_since(std::string_view, std::int64_t,
                                                                int) const override {
    return std::vector<tandem::store::event_record>{};
  }
  result<void> add_checkpoint(tandem::store::checkpoint_record) override {
    return session_.admits();
  }
  result<tandem::store::page<tandem::store::checkpoint_record>> list_checkpoints(
      std::string_view, std::string_view, int) const override {
    return tandem::store::page<tandem::store::checkpoint_record>{};
  }
  result<void> remove_checkpoint(std::string_view, std::int64_t) override {
    return session_.admits();
  }
  std::shared_ptr<lease::lease_store> leases() override { return leases_; }
  // As sql_store's: without an answer nobody knows who leads.
  result<void> writable() override {
    auto admitted = session_.admits();
    if (admitted || admitted.error().code == errc::conflict) return admitted;
    return error{errc::unavailable, admitted.error().detail, tandem::store::lead_unsure};
  }

  int watch(std::function<void(const std::string& job)> listener) override {
    listener_ = std::move(listener);
    return 1;
  }
  void unwatch(int) override { listener_ = {}; }

 private:
  static error nothing() { return {errc::not_found, "a simulation has no such thing", ""}; }
  job_record* at(std::string_view id) {
    for (auto& job : session_.on().jobs)
      if (job.id == id) return &job;
    return nullptr;
  }
  void tell(const std::string& job) const {
    if (listener_) listener_(job);
  }

  database_session session_;
  std::function<void(const std::string&)> listener_;
  std::shared_ptr<memory_leases> leases_;
};

}  // namespace tandem::sim
