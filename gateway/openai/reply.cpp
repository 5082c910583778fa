#include "gateway/openai/reply.hpp"

#include <algorithm>
#include <utility>

namespace tandem::gateway::openai {

namespace {

class prompt_sink final : public delta_sink {
 public:
  prompt_sink(std::shared_ptr<reply> owner, std::size_t prompt)
      : owner_(std::move(owner)), prompt_(prompt) {}
  void on_delta(serve::generation_delta delta) override {
    owner_->on_delta(prompt_, std::move(delta));
  }

 private:
  std::shared_ptr<reply> owner_;
  std::size_t prompt_;
};

error failure_of(const serve::generation_delta& delta) {
  if (delta.failure) return *delta.failure;
  return {errc::unavailable, "The server took the request back before it was done.", ""};
}

}  // namespace

reply::reply(answer_context context, const answer_format& format,
             std::shared_ptr<engine> engine_door, std::shared_ptr<responder> to)
    : context_(std::move(context)),
      format_(format),
      to_(std::move(to)),
      weights_version_(context_.model->weights_version),
      engine_(std::move(engine_door)) {}

void reply::start(std::vector<serve::generation_request> requests) {
  ensure(!requests.empty(), "a reply without requests");
  const auto choices = static_cast<std::size_t>(context_.choices_per_prompt);
  requests_.resize(requests.size());
  for (counted& request : requests_) {
    request.completion_tokens.resize(choices);
    request.finished.resize(choices);
  }
  open_choices_ = requests.size() * choices;
  wait();
  // Deltas may come before the last submit, and on this very thread: no lock is held here.
  std::vector<serve::request_id> submitted;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const auto id = engine_->submit(std::move(requests[i]),
                                    std::make_shared<prompt_sink>(shared_from_this(), i));
    submitted.push_back(id);
    const std::lock_guard lock(mutex_);
    if (over_) break;
    ids_.push_back(id);
  }
  bool failed = false;
  {
    const std::lock_guard lock(mutex_);
    failed = over_ && open_choices_ > 0;
  }
  if (failed) return cancel(submitted);
  to_->on_gone([door = engine_, submitted] {
    for (const serve::request_id id : submitted) door->cancel(id);
  });
}

void reply::on_delta(std::size_t prompt, serve::generation_delta delta) {
  ensure(prompt < requests_.size(), "a delta of a prompt that nobody asked for");
  std::vector<serve::request_id> others;
  {
    const std::lock_guard lock(mutex_);
    if (over_) return;
    if (delta.finish == serve::finish_reason::error ||
        delta.finish == serve::finish_reason::cancelled) {
      over_ = true;
      others = std::exchange(ids_, {});
      fail(failure_of(delta));
    } else {
      counted& request = requests_[prompt];
      const auto choice = static_cast<std::size_t>(delta.choice);
      ensure(choice < request.finished.size(), "a delta of a choice that nobody asked for");
      if (request.finished[choice]) return;
      count(request, delta);
      const bool finishes = delta.finish != serve::finish_reason::none;
      const auto choices = static_cast<int>(request.finished.size());
      const bool last = finishes && open_choices_ == 1;
      const int index = static_cast<int>(prompt) * choices + delta.choice;
      take(index, std::move(delta), last);
      if (!finishes) return;
      request.finished[choice] = true;
      if (--open_choices_ > 0) return;
      over_ = true;
      complete();
      return;
    }
  }
  cancel(others);
}

void reply::count(counted& request, const serve::generation_delta& delta) {
  if (!request.prompt_seen) {
    request.prompt_seen = true;
    usage_.prompt_tokens += delta.prompt_tokens;
    usage_.cached_tokens += delta.cached_tokens;
  }
  queued_ns_ = std::max(queued_ns_, delta.queued_ns);
  if (delta.weights_version != 0) weights_version_ = delta.weights_version;
  int& known = request.completion_tokens[static_cast<std::size_t>(delta.choice)];
  if (!context_.hide_completion) usage_.completion_tokens += delta.completion_tokens - known;
  known = delta.completion_tokens;
}

void reply::cancel(const std::vector<serve::request_id>& ids) {
  for (const serve::request_id id : ids) engine_->cancel(id);
}

}  // namespace tandem::gateway::openai
