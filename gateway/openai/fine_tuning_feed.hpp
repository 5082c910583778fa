// Live events of jobs: what has happened, then what happens until the job ends.
#pragma once

#include "gateway/event_feed.hpp"
#include "runtime/store/store.hpp"

#include <memory>
#include <string>

namespace tandem::gateway::openai {

class job_feed {
 public:
  explicit job_feed(std::shared_ptr<store::store> from);
  ~job_feed();
  job_feed(const job_feed&) = delete;
  job_feed& operator=(const job_feed&) = delete;

  // The responder is begun already; this ends it, after `data: [DONE]` when the job has ended.
  void follow(const std::string& job, std::shared_ptr<responder> to);
  // Ends all of them; those that come later end at once. The server calls it to drain.
  void close() { feed_->close(); }
  // Streams open now.
  std::size_t listeners() const { return feed_->listeners(); }

 private:
  const std::shared_ptr<store::store> store_;
  const std::shared_ptr<event_feed> feed_ = std::make_shared<event_feed>();
  int watch_ = 0;
};

}  // namespace tandem::gateway::openai
