#include "actors/open_requests.hpp"

#include <iterator>
#include <utility>

namespace tandem::actors {

void open_requests::add(std::shared_ptr<remote_node> node, const caf::strong_actor_ptr& sender,
                        caf::message_id id) {
  const key name{sender->id(), id.request_id().integer_value()};
  const std::lock_guard lock(mutex_);
  if (const auto same = by_key_.find(name); same != by_key_.end()) {
    by_age_.erase(same->second);
    by_key_.erase(same);
  }
  if (by_age_.size() >= most_) {
    by_key_.erase(by_age_.front().name);
    by_age_.pop_front();
  }
  by_age_.push_back({name, {std::move(node), caf::actor_cast<caf::weak_actor_ptr>(sender), id}});
  by_key_.emplace(name, std::prev(by_age_.end()));
}

void open_requests::end(caf::actor_id sender, caf::message_id id) {
  const std::lock_guard lock(mutex_);
  const auto found = by_key_.find({sender, id.request_id().integer_value()});
  if (found == by_key_.end()) return;
  by_age_.erase(found->second);
  by_key_.erase(found);
}

std::vector<open_requests::request> open_requests::take(const remote_node& node) {
  std::vector<request> taken;
  const std::lock_guard lock(mutex_);
  std::erase_if(by_age_, [&](entry& one) {
    if (one.what.node.get() != &node) return false;
    by_key_.erase(one.name);
    taken.push_back(std::move(one.what));
    return true;
  });
  return taken;
}

void open_requests::clear() {
  const std::lock_guard lock(mutex_);
  by_key_.clear();
  by_age_.clear();
}

std::size_t open_requests::count() const {
  const std::lock_guard lock(mutex_);
  return by_age_.size();
}

}  // namespace tandem::actors
