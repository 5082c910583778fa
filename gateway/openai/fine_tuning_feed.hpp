// Live events of jobs for any number of listeners: what has happened, then what happens until the
// job ends. One thread reads the store for all of them; a listener that reads slowly is sent no
// more than it takes, and holds up nobody.
#pragma once

#include "gateway/http.hpp"
#include "runtime/store/store.hpp"

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace tandem::gateway::openai {

class job_feed : public std::enable_shared_from_this<job_feed> {
 public:
  explicit job_feed(std::shared_ptr<store::store> from);
  ~job_feed();
  job_feed(const job_feed&) = delete;
  job_feed& operator=(const job_feed&) = delete;

  // The responder is begun already; this ends it, after `data: [DONE]` when the job has ended.
  void follow(const std::string& job, std::shared_ptr<responder> to);
  // Ends all of them; those that come later end at once. The server calls it to drain.
  void close();
  // Streams open now.
  std::size_t listeners() const;

 private:
  struct listener {
    std::string job;
    std::shared_ptr<responder> to;
    std::int64_t next = 0;  // the first sequence number not yet sent
    bool full = false;      // waits for its client to read
  };

  void run();
  void wake(std::uint64_t id);
  void wake_job(const std::string& job);
  void send_news(std::uint64_t id, listener& one);
  void forget(std::uint64_t id);

  const std::shared_ptr<store::store> store_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, std::shared_ptr<listener>> listeners_;
  std::deque<std::uint64_t> due_;  // to be looked at
  std::uint64_t next_id_ = 1;
  bool closed_ = false;
  int watch_ = 0;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace tandem::gateway::openai
