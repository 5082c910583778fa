// The answer as one JSON body. While it is waited for, white space goes out, which JSON allows
// before a document, so that no proxy takes the silence for death.
#include "gateway/http_error.hpp"
#include "gateway/json_writer.hpp"
#include "gateway/openai/reply.hpp"

#include <iterator>

namespace tandem::gateway::openai {

namespace {

template <class T>
void append_all(std::vector<T>& to, std::vector<T>&& more) {
  to.insert(to.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

class whole final : public reply {
 public:
  whole(answer_context context, const answer_format& format, std::shared_ptr<engine> engine_door,
        std::shared_ptr<responder> to)
      : reply(std::move(context), format, std::move(engine_door), std::move(to)) {}

 private:
  void wait() override { to_->heartbeat(" ", "application/json"); }

  void take(int index, serve::generation_delta delta, bool) override {
    const auto at = static_cast<std::size_t>(index);
    if (choices_.size() <= at) choices_.resize(at + 1);
    choice_part& part = choices_[at];
    part.index = index;
    part.finish = delta.finish;
    if (!delta.prompt_logprobs.empty()) part.prompt_logprobs = std::move(delta.prompt_logprobs);
    if (context_.hide_completion) {
      part.finish = serve::finish_reason::length;
      return;
    }
    part.text += delta.text;
    append_all(part.tokens, std::move(delta.tokens));
    append_all(part.logprobs, std::move(delta.logprobs));
    part.stop_string = std::move(delta.stop_string);
    part.stop_token = delta.stop_token;
  }

  void complete() override {
    share_prompt_logprobs();
    http_response response;
    response.headers = context_.headers;
    std::string& body = response.body;
    append_head(body, context_, format_.object(false), weights_version_);
    body += R"(,"choices":[)";
    for (std::size_t i = 0; i < choices_.size(); ++i) {
      if (i > 0) body += ',';
      format_.append_choice(body, context_, choices_[i], part_kind::whole);
    }
    body += R"(],"usage":)";
    append_usage(body, usage_);
    format_.append_extras(body, context_, choices_);
    body += R"(,"tandem":)";
    append_tandem(body, *context_.model, weights_version_, queued_ns_);
    body += '}';
    to_->send(std::move(response));
  }

  void fail(const error& why) override { to_->send(error_response(why)); }

  // The engine tells a prompt's once; every choice of that prompt shows them.
  void share_prompt_logprobs() {
    const auto n = static_cast<std::size_t>(context_.choices_per_prompt);
    for (std::size_t first = 0; first < choices_.size(); first += n) {
      std::size_t told = first;
      while (told < first + n && choices_[told].prompt_logprobs.empty()) ++told;
      if (told == first + n) continue;
      for (std::size_t i = first; i < first + n; ++i)
        if (i != told) choices_[i].prompt_logprobs = choices_[told].prompt_logprobs;
    }
  }

  std::vector<choice_part> choices_;
};

}  // namespace

std::shared_ptr<reply> whole_reply(answer_context context, const answer_format& format,
                                   std::shared_ptr<engine> engine_door,
                                   std::shared_ptr<responder> to) {
  return std::make_shared<whole>(std::move(context), format, std::move(engine_door), std::move(to));
}

}  // namespace tandem::gateway::openai
