// A store in a folder that is gone when the test is, and jobs as tests need them.
#pragma once

#include "runtime/store/store.hpp"
#include "tests/support/temporary_folder.hpp"

#include <memory>
#include <string>
#include <string_view>

namespace tandem::test {

class store_world {
 public:
  store_world() { open(); }

  store::store& operator*() { return *store_; }
  store::store* operator->() { return store_.get(); }
  const std::shared_ptr<store::store>& shared() const { return store_; }
  const std::filesystem::path& path() const { return folder_.path(); }
  void close() { store_.reset(); }
  void open() {
    auto opened = store::store::open(folder_.path() / "store");
    ensure(opened.has_value(), "a store in a new folder");
    store_ = *opened;
  }

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

 private:
  temporary_folder folder_;
  std::shared_ptr<store::store> store_;
};

}  // namespace tandem::test
