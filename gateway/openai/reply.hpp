// From the engine's deltas to one HTTP answer. A reply submits its requests (one a prompt), cancels
// them when the client goes away or when one of them fails, adds up the usage, and is told each
// part in order under a lock. Two kinds: collected and sent as one body, or streamed as events.
#pragma once

#include "gateway/engine.hpp"
#include "gateway/http.hpp"
#include "gateway/openai/answer_format.hpp"

#include <chrono>
#include <memory>
#include <mutex>
#include <vector>

namespace tandem::gateway::openai {

class reply : public std::enable_shared_from_this<reply> {
 public:
  virtual ~reply() = default;
  reply(const reply&) = delete;
  reply& operator=(const reply&) = delete;

  // Once. Request i belongs to prompt i; all have context.choices_per_prompt choices.
  void start(std::vector<serve::generation_request> requests);
  void on_delta(std::size_t prompt, serve::generation_delta delta);

 protected:
  reply(answer_context context, const answer_format& format, std::shared_ptr<engine> engine_door,
        std::shared_ptr<responder> to);

  // Called one at a time, with the lock held; `index` counts choices over all prompts.
  virtual void wait() = 0;  // before the first part
  // `last`: with this delta the whole answer is there.
  virtual void take(int index, serve::generation_delta delta, bool last) = 0;
  virtual void complete() = 0;
  virtual void fail(const error& why) = 0;

  const answer_context context_;
  const answer_format& format_;
  const std::shared_ptr<responder> to_;
  usage_totals usage_;
  std::int64_t queued_ns_ = 0;         // the longest of its requests
  std::uint64_t weights_version_ = 0;  // known with the first delta

 private:
  struct counted {
    bool prompt_seen = false;
    std::vector<int> completion_tokens;  // by choice
    std::vector<bool> finished;
  };
  void count(counted& request, const serve::generation_delta& delta);
  void cancel(const std::vector<serve::request_id>& ids);

  std::shared_ptr<engine> engine_;
  std::mutex mutex_;
  std::vector<serve::request_id> ids_;
  std::vector<counted> requests_;
  std::size_t open_choices_ = 0;
  bool over_ = false;
};

std::shared_ptr<reply> whole_reply(answer_context context, const answer_format& format,
                                   std::shared_ptr<engine> engine_door,
                                   std::shared_ptr<responder> to);
std::shared_ptr<reply> stream_reply(answer_context context, const answer_format& format,
                                    std::shared_ptr<engine> engine_door,
                                    std::shared_ptr<responder> to);

}  // namespace tandem::gateway::openai
