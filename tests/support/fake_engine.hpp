// An engine that says what a test tells it to say, when it tells it to.
#pragma once

#include "gateway/engine.hpp"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

namespace tandem::test {

class fake_engine final : public gateway::engine {
 public:
  struct running {
    serve::request_id id = 0;
    serve::generation_request request;
    std::shared_ptr<gateway::delta_sink> sink;
  };

  std::vector<running> requests;
  std::vector<serve::request_id> cancelled;
  std::vector<std::shared_ptr<const gateway::served_model>> served;
  gateway::readiness now = gateway::readiness::ready;
  // Set: every request is refused with it, at once and on the caller's thread.
  std::optional<error> refusal;
  // Set: every request is answered at once with this text.
  std::optional<std::string> answer;

  serve::request_id submit(serve::generation_request request,
                           std::shared_ptr<gateway::delta_sink> sink) override {
    const serve::request_id id = requests.size() + 1;
    requests.push_back({id, std::move(request), std::move(sink)});
    if (refusal) fail(requests.size() - 1, *refusal);
    if (answer) {
      for (int choice = 0; choice < requests[id - 1].request.choices; ++choice)
        says(id - 1, *answer, serve::finish_reason::stop, choice);
    }
    return id;
  }
  void cancel(serve::request_id id) override { cancelled.push_back(id); }
  std::vector<std::shared_ptr<const gateway::served_model>> models() const override {
    return served;
  }
  gateway::readiness state() const override { return now; }
  std::string state_detail() const override { return "loading weights"; }
  std::string metrics() const override { return "tandem_requests_inside 0\n"; }
  std::string status_json() const override { return R"({"state":"ready","devices":[]})"; }

  // The next delta of a choice, its totals counted on from the last one: a token a byte.
  void says(std::size_t request, const std::string& text,
            serve::finish_reason finish = serve::finish_reason::none, int choice = 0) {
    send(request, told(request, text, finish, choice));
  }
  serve::generation_delta told(std::size_t request, const std::string& text,
                               serve::finish_reason finish = serve::finish_reason::none,
                               int choice = 0) {
    serve::generation_delta delta;
    delta.id = requests.at(request).id;
    delta.choice = choice;
    delta.text = text;
    delta.finish = finish;
    for (const char byte : text) delta.tokens.push_back(static_cast<unsigned char>(byte));
    delta.prompt_tokens = static_cast<int>(requests.at(request).request.prompt.size());
    delta.cached_tokens = cached_tokens;
    completion_tokens_.resize(std::max(completion_tokens_.size(), request + 1));
    auto& of_choices = completion_tokens_[request];
    of_choices.resize(std::max(of_choices.size(), static_cast<std::size_t>(choice) + 1));
    of_choices[static_cast<std::size_t>(choice)] += static_cast<int>(text.size());
    delta.completion_tokens = of_choices[static_cast<std::size_t>(choice)];
    delta.queued_ns = 1'500'000;
    delta.weights_version = 7;
    return delta;
  }
  void send(std::size_t request, serve::generation_delta delta) {
    const auto sink = requests.at(request).sink;
    sink->on_delta(std::move(delta));
  }
  void fail(std::size_t request, error why) {
    serve::generation_delta delta;
    delta.finish = serve::finish_reason::error;
    delta.failure = std::move(why);
    send(request, std::move(delta));
  }

  int cached_tokens = 0;

 private:
  std::vector<std::vector<int>> completion_tokens_;  // by request and choice
};

}  // namespace tandem::test
