// Lease events as a live stream: what the board keeps behind a sequence number, then what happens.
#pragma once

#include "actors/lease_board.hpp"
#include "gateway/event_feed.hpp"

#include <cstdint>
#include <memory>

namespace tandem::gateway {

class lease_feed {
 public:
  explicit lease_feed(std::shared_ptr<actors::lease_board> from);
  ~lease_feed();
  lease_feed(const lease_feed&) = delete;
  lease_feed& operator=(const lease_feed&) = delete;

  // The responder is begun already. Events with a sequence above `after`; the stream ends when the
  // server drains, or with an error event when the client reads so slowly that the board has
  // forgotten what comes next.
  void follow(std::uint64_t after, std::shared_ptr<responder> to);
  void close() { feed_->close(); }
  std::size_t listeners() const { return feed_->listeners(); }

 private:
  const std::shared_ptr<actors::lease_board> board_;
  const std::shared_ptr<event_feed> feed_ = std::make_shared<event_feed>();
  int listening_ = 0;
};

}  // namespace tandem::gateway
