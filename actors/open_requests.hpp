// Requests to actors of other nodes that are not answered yet: when their node goes, they are given
// back as errors. One that its sender no longer waits for may never be answered, so there is a
// bound: the oldest is forgotten, and then only a timeout of its own ends it.
#pragma once

#include <caf/all.hpp>

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace tandem::actors {

struct remote_node;

// Safe to use from any thread.
class open_requests {
 public:
  struct request {
    std::shared_ptr<remote_node> node;
    caf::weak_actor_ptr sender;  // it may end without its answer
    caf::message_id id;
  };

  explicit open_requests(std::size_t most) : most_(most) {}

  void add(std::shared_ptr<remote_node> node, const caf::strong_actor_ptr& sender,
           caf::message_id id);
  // It was answered, or never sent. The id is that of the request or of its answer.
  void end(caf::actor_id sender, caf::message_id id);
  // Those to this node, oldest first; they are open no longer.
  std::vector<request> take(const remote_node& node);
  void clear();
  std::size_t count() const;

 private:
  struct key {
    caf::actor_id sender;
    std::uint64_t number;
    auto operator<=>(const key&) const = default;
  };
  struct entry {
    key name;
    request what;
  };

  const std::size_t most_;
  mutable std::mutex mutex_;
  std::list<entry> by_age_;
  std::map<key, std::list<entry>::iterator> by_key_;
};

}  // namespace tandem::actors
