// Live event streams for any number of listeners. One thread reads for all of them whatever is new
// to each; a listener that reads slowly is sent no more than it takes, and holds up nobody.
#pragma once

#include "gateway/http.hpp"

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

namespace tandem::gateway {

// Begins the answer: a stream of events that proxies do not hold back, with a comment whenever it
// was silent for server.heartbeat_ms.
void begin_event_stream(const std::shared_ptr<responder>& to);

class event_feed : public std::enable_shared_from_this<event_feed> {
 public:
  // What one listener gets next, a bounded piece of it; empty: nothing is new. `last`: the stream
  // ends behind it. Called by the feed's thread, one call at a time.
  struct news {
    std::string bytes;
    bool last = false;
  };
  using reader = std::function<news()>;

  event_feed();
  ~event_feed();
  event_feed(const event_feed&) = delete;
  event_feed& operator=(const event_feed&) = delete;

  // The responder is begun already; this ends it. `read` is asked now, whenever `topic` wakes, and
  // when the client has taken what it was sent.
  void follow(std::string topic, std::shared_ptr<responder> to, reader read);
  // Any thread, and never waits for a client or a disk: something is new.
  void wake(std::string_view topic);
  // Ends all of them; those that come later end at once. The server calls it to drain.
  void close();
  // Streams open now.
  std::size_t listeners() const;

 private:
  struct listener {
    std::string topic;
    std::shared_ptr<responder> to;
    reader read;
    bool full = false;  // waits for its client to read
  };

  void run();
  void taken(std::uint64_t id);
  void send_news(std::uint64_t id, listener& one);
  void forget(std::uint64_t id);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, std::shared_ptr<listener>> listeners_;
  std::deque<std::uint64_t> due_;  // to be looked at
  std::uint64_t next_id_ = 1;
  bool closed_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace tandem::gateway
