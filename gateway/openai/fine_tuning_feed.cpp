#include "gateway/openai/fine_tuning_feed.hpp"

#include "gateway/http_error.hpp"
#include "gateway/openai/fine_tuning_format.hpp"

#include <algorithm>
#include <vector>

namespace tandem::gateway::openai {

namespace {

// Read from the store in one go; sent before the client has to take some.
constexpr int events_read = 256;

}  // namespace

job_feed::job_feed(std::shared_ptr<store::store> from) : store_(std::move(from)) {
  watch_ = store_->watch([this](const std::string& job) { wake_job(job); });
  thread_ = std::thread([this] { run(); });
}

job_feed::~job_feed() {
  store_->unwatch(watch_);
  close();
  thread_.join();
}

void job_feed::follow(const std::string& job, std::shared_ptr<responder> to) {
  std::uint64_t id = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!closed_) {
      id = next_id_++;
      listeners_.emplace(id, std::make_shared<listener>(listener{job, to}));
      due_.push_back(id);
      changed_.notify_one();
    }
  }
  if (id == 0) return to->end();
  // Not under the lock: who is gone already is told of at once.
  to->on_gone([weak = weak_from_this(), id] {
    if (const auto self = weak.lock()) self->forget(id);
  });
}

void job_feed::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_one();
}

std::size_t job_feed::listeners() const {
  const std::lock_guard lock(mutex_);
  return listeners_.size();
}

void job_feed::wake(std::uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = listeners_.find(id);
  if (found == listeners_.end()) return;
  found->second->full = false;
  due_.push_back(id);
  changed_.notify_one();
}

// Called by whoever changed the job, who must not wait: the thread looks.
void job_feed::wake_job(const std::string& job) {
  const std::lock_guard lock(mutex_);
  for (const auto& [id, one] : listeners_)
    if (one->job == job && !one->full && std::find(due_.begin(), due_.end(), id) == due_.end())
      due_.push_back(id);
  changed_.notify_one();
}

void job_feed::forget(std::uint64_t id) {
  std::shared_ptr<listener> last;  // let go behind the lock
  const std::lock_guard lock(mutex_);
  const auto found = listeners_.find(id);
  if (found == listeners_.end()) return;
  last = std::move(found->second);
  listeners_.erase(found);
}

void job_feed::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return closed_ || !due_.empty(); });
    if (closed_) break;
    const std::uint64_t id = due_.front();
    due_.pop_front();
    const auto found = listeners_.find(id);
    if (found == listeners_.end()) continue;
    const auto one = found->second;
    lock.unlock();
    send_news(id, *one);
    lock.lock();
  }
  const auto open = std::exchange(listeners_, {});
  lock.unlock();
  for (const auto& [id, one] : open) one->to->end();
}

void job_feed::send_news(std::uint64_t id, listener& one) {
  const auto give_up = [&](const error& why) {
    one.to->write("data: " + error_body(why) + "\n\n");
    one.to->end();
    forget(id);
  };
  // Looked at before the events: the one that tells of the end is among them then.
  const auto job = store_->find_job(one.job);
  if (!job) return give_up(job.error());
  const auto events = store_->events_since(one.job, one.next, events_read);
  if (!events) return give_up(events.error());
  std::string out;
  for (const auto& event : *events) {
    out += "data: ";
    append_job_event(out, event);
    out += "\n\n";
    one.next = event.sequence + 1;
  }
  const bool all = static_cast<int>(events->size()) < events_read;
  if (all && store::is_final(job->status)) {
    one.to->write(out + "data: [DONE]\n\n");
    one.to->end();
    return forget(id);
  }
  if (out.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    one.full = true;
  }
  one.to->write(std::move(out));
  one.to->on_taken([weak = weak_from_this(), id] {
    if (const auto self = weak.lock()) self->wake(id);
  });
}

}  // namespace tandem::gateway::openai
