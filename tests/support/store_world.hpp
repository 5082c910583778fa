// A store that is gone when the test is, and jobs as tests need them. TANDEM_TEST_STORE=postgres
// puts it into a database of its own on the test server, anything else into SQLite.
#pragma once

#include "runtime/store/postgres_store.hpp"
#include "runtime/store/store.hpp"
#include "tests/support/postgres.hpp"
#include "tests/support/temporary_folder.hpp"

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace tandem::test {

class store_world {
 public:
  store_world() {
    const char* wanted = std::getenv("TANDEM_TEST_STORE");
    if (wanted && std::string_view(wanted) == "postgres") database_.emplace();
    open();
  }
  // These stay as they are while a store opened by `try_open` lives.
  bool in_postgres() const { return database_.has_value(); }
  std::string url() const { return database_->url(); }

  store::store& operator*() { return *store_; }
  store::store* operator->() { return store_.get(); }
  const std::shared_ptr<store::store>& shared() const { return store_; }
  const std::filesystem::path& path() const { return folder_.path(); }
  void close() { store_.reset(); }
  void open() {
    auto opened = try_open();
    ensure(opened.has_value(), opened ? "" : opened.error().detail.c_str());
    store_ = *opened;
  }
  // As another process would. With PostgreSQL it waits for the lead for 10 s.
  result<std::shared_ptr<store::store>> try_open() {
    const auto folder = folder_.path() / "store";
    if (!in_postgres()) return store::store::open(folder);
    store::seat_options how;
    how.url = url();
    how.called = "test:1";
    how.pause = [until = std::chrono::steady_clock::now() + std::chrono::seconds(10)](auto length) {
      wait_for(length);
      return std::chrono::steady_clock::now() < until;
    };
    auto seat = store::leader_seat::take(std::move(how));
    if (!seat) return seat.error();
    return store::open_postgres_store({url(), folder, *std::move(seat), {}});
  }
  // Where the bytes of files lie.
  std::filesystem::path files() const { return store_->part_path().parent_path(); }

  store::file_record file(std::string_view bytes = "{\"text\": \"hello\"}\n",
                          std::string_view purpose = "fine-tune") {
    auto part = store_->part_path();
    std::ofstream(part, std::ios::binary) << bytes;
    store::file_record file;
    file.filename = "data.jsonl";
    file.purpose = purpose;
    auto added = store_->add_file(file, part);
    ensure(added.has_value(), "a file was not taken");
    return *added;
  }
  store::job_record job(std::string_view key = {}) {
    store::job_record job;
    job.model = "smollm2-135m";
    job.training_file = file().id;
    job.seed = 7;
    job.idempotency_key = key;
    auto added = store_->add_job(job);
    ensure(added.has_value(), "a job was not taken");
    return *added;
  }
  // A job that came as far as `status`.
  store::job_record job_in(store::job_status status) {
    using enum store::job_status;
    auto made = job();
    auto go = [&](store::job_status from, store::job_status to) {
      ensure(store_->change_status(made.id, {from}, to).has_value(), "a move that is allowed");
    };
    if (status == validating_files) return made;
    if (status == failed) {
      ensure(store_->fail_job(made.id, {errc::bad_file, "line 1: no", "training_file"}).has_value(),
             "a job can fail");
      return *store_->find_job(made.id);
    }
    go(validating_files, queued);
    if (status == running || status == paused || status == succeeded) go(queued, running);
    if (status == paused) go(running, paused);
    if (status == succeeded) go(running, succeeded);
    if (status == cancelled) go(queued, cancelled);
    return *store_->find_job(made.id);
  }

  // For pauses between two looks at a database, which nobody wakes us from.
  static void wait_for(std::chrono::milliseconds length) {
    std::mutex mutex;
    std::unique_lock lock(mutex);
    std::condition_variable nobody;
    nobody.wait_for(lock, length);
  }

 private:
  temporary_folder folder_;
  std::optional<postgres_database_of_test> database_;
  std::shared_ptr<store::store> store_;
};

}  // namespace tandem::test
