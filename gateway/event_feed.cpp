#include "gateway/event_feed.hpp"

#include <algorithm>
#include <utility>

namespace tandem::gateway {

void begin_event_stream(const std::shared_ptr<responder>& to) {
  constexpr const char* event_type = "text/event-stream; charset=utf-8";
  to->begin(200, event_type, {{"cache-control", "no-cache"}, {"x-accel-buffering", "no"}});
  to->heartbeat(":\n\n", event_type);
}

event_feed::event_feed() : thread_([this] { run(); }) {}

event_feed::~event_feed() {
  close();
  thread_.join();
}

void event_feed::follow(std::string topic, std::shared_ptr<responder> to, reader read) {
  std::uint64_t id = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!closed_) {
      id = next_id_++;
      listeners_.emplace(
          id, std::make_shared<listener>(listener{std::move(topic), to, std::move(read)}));
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

void event_feed::wake(std::string_view topic) {
  const std::lock_guard lock(mutex_);
  for (const auto& [id, one] : listeners_)
    if (one->topic == topic && !one->full && std::find(due_.begin(), due_.end(), id) == due_.end())
      due_.push_back(id);
  changed_.notify_one();
}

void event_feed::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_one();
}

std::size_t event_feed::listeners() const {
  const std::lock_guard lock(mutex_);
  return listeners_.size();
}

void event_feed::taken(std::uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = listeners_.find(id);
  if (found == listeners_.end()) return;
  found->second->full = false;
  due_.push_back(id);
  changed_.notify_one();
}

void event_feed::forget(std::uint64_t id) {
  std::shared_ptr<listener> last;  // let go behind the lock
  const std::lock_guard lock(mutex_);
  const auto found = listeners_.find(id);
  if (found == listeners_.end()) return;
  last = std::move(found->second);
  listeners_.erase(found);
}

void event_feed::run() {
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

void event_feed::send_news(std::uint64_t id, listener& one) {
  news next = one.read();
  if (next.last) {
    one.to->write(std::move(next.bytes));
    one.to->end();
    return forget(id);
  }
  if (next.bytes.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    one.full = true;
  }
  one.to->write(std::move(next.bytes));
  one.to->on_taken([weak = weak_from_this(), id] {
    if (const auto self = weak.lock()) self->taken(id);
  });
}

}  // namespace tandem::gateway
