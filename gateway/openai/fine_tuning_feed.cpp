#include "gateway/openai/fine_tuning_feed.hpp"

#include "gateway/http_error.hpp"
#include "gateway/openai/fine_tuning_format.hpp"

#include <utility>

namespace tandem::gateway::openai {

namespace {

// Read from the store in one go; sent before the client has to take some.
constexpr int events_read = 256;

event_feed::news news_of(store::store& from, const std::string& id, std::int64_t& next) {
  const auto broken = [](const error& why) {
    return event_feed::news{"data: " + error_body(why) + "\n\n", true};
  };
  // Looked at before the events: the one that tells of the end is among them then.
  const auto job = from.find_job(id);
  if (!job) return broken(job.error());
  const auto events = from.events_since(id, next, events_read);
  if (!events) return broken(events.error());
  std::string out;
  for (const auto& event : *events) {
    out += "data: ";
    append_job_event(out, event);
    out += "\n\n";
    next = event.sequence + 1;
  }
  const bool all = static_cast<int>(events->size()) < events_read;
  const bool ended = all && store::is_final(job->status);
  if (ended) out += "data: [DONE]\n\n";
  return {std::move(out), ended};
}

}  // namespace

job_feed::job_feed(std::shared_ptr<store::store> from) : store_(std::move(from)) {
  watch_ = store_->watch([feed = feed_](const std::string& job) { feed->wake(job); });
}

job_feed::~job_feed() { store_->unwatch(watch_); }

void job_feed::follow(const std::string& job, std::shared_ptr<responder> to) {
  feed_->follow(job, std::move(to), [from = store_, job, next = std::int64_t{0}]() mutable {
    return news_of(*from, job, next);
  });
}

}  // namespace tandem::gateway::openai
