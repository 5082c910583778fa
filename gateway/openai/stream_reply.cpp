// The answer as server-sent events: `data: {chunk}` and a blank line, at last `data: [DONE]`. All
// chunks share id, created and model, so their common beginning is written once.
#include "gateway/http_error.hpp"
#include "gateway/json_writer.hpp"
#include "gateway/openai/reply.hpp"

namespace tandem::gateway::openai {

namespace {

class stream final : public reply {
 public:
  stream(answer_context context, const answer_format& format, std::shared_ptr<engine> engine_door,
         std::shared_ptr<responder> to)
      : reply(std::move(context), format, std::move(engine_door), std::move(to)),
        made_(std::chrono::steady_clock::now()) {}

 private:
  struct choice_state {
    bool opened = false;
    std::int64_t text_offset = 0;
  };

  void wait() override { to_->heartbeat(":\n\n", event_type); }

  void take(int index, serve::generation_delta delta, bool last) override {
    begin();
    const auto at = static_cast<std::size_t>(index);
    if (choices_.size() <= at) choices_.resize(at + 1);
    choice_state& state = choices_[at];
    std::string out;
    if (!state.opened) {
      state.opened = true;
      append_opening(out, index, state, delta);
    }
    append_delta(out, index, state, delta);
    if (delta.finish != serve::finish_reason::none) append_ending(out, index, delta, last);
    if (!out.empty()) to_->write(std::move(out));
  }

  void complete() override {
    std::string out;
    if (context_.include_usage) {
      out += prefix_;
      out += R"(],"usage":)";
      append_usage(out, usage_);
      append_last_end(out);
    }
    out += "data: [DONE]\n\n";
    to_->write(std::move(out));
    to_->end();
  }

  void fail(const error& why) override {
    // Before the first heartbeat nothing is out, and the failure still has a status of its own.
    const auto waited = std::chrono::steady_clock::now() - made_;
    if (!begun_ && waited < std::chrono::milliseconds(context_.heartbeat_ms) / 2) {
      to_->send(error_response(why));
      return;
    }
    begin();
    to_->write("data: " + error_body(why) + "\n\n");
    to_->end();
  }

  void begin() {
    if (begun_) return;
    begun_ = true;
    header_list headers = context_.headers;
    headers.emplace_back("cache-control", "no-cache");
    headers.emplace_back("x-accel-buffering", "no");  // nginx would hold the stream back
    to_->begin(200, event_type, std::move(headers));
    prefix_ = "data: ";
    append_head(prefix_, context_, format_.object(true), weights_version_);
    prefix_ += R"(,"choices":[)";
  }

  void append_opening(std::string& out, int index, choice_state& state,
                      serve::generation_delta& delta) {
    if (!format_.has_opening(context_)) return;
    choice_part part;
    part.index = index;
    part.prompt_logprobs = std::move(delta.prompt_logprobs);
    out += prefix_;
    format_.append_choice(out, context_, part, part_kind::opening);
    append_end(out, delta);
    if (!context_.echo.empty()) {
      const auto prompt = static_cast<std::size_t>(index / context_.choices_per_prompt);
      state.text_offset = characters(context_.echo[prompt]);
    }
  }

  void append_delta(std::string& out, int index, choice_state& state,
                    serve::generation_delta& delta) {
    const bool tells = !delta.text.empty() || (context_.logprobs >= 0 && !delta.logprobs.empty()) ||
                       (context_.return_token_ids && !delta.tokens.empty());
    if (!tells || context_.hide_completion) return;
    choice_part part;
    part.index = index;
    part.text = std::move(delta.text);
    part.tokens = std::move(delta.tokens);
    part.logprobs = std::move(delta.logprobs);
    part.text_offset = state.text_offset;
    if (context_.logprobs >= 0) state.text_offset += characters(part.text);
    out += prefix_;
    format_.append_choice(out, context_, part, part_kind::delta);
    append_end(out, delta);
  }

  void append_ending(std::string& out, int index, serve::generation_delta& delta, bool last) {
    choice_part part;
    part.index = index;
    part.finish = context_.hide_completion ? serve::finish_reason::length : delta.finish;
    part.stop_string = std::move(delta.stop_string);
    part.stop_token = delta.stop_token;
    out += prefix_;
    format_.append_choice(out, context_, part, part_kind::ending);
    if (!last || context_.include_usage) return append_end(out, delta);
    out += ']';
    append_usage_so_far(out, delta);
    append_last_end(out);
  }

  void append_end(std::string& out, const serve::generation_delta& delta) const {
    out += ']';
    append_usage_so_far(out, delta);
    out += "}\n\n";
  }

  // The last chunk tells where the answer came from.
  void append_last_end(std::string& out) const {
    out += R"(,"tandem":)";
    append_tandem(out, *context_.model, weights_version_, queued_ns_);
    out += "}\n\n";
  }

  void append_usage_so_far(std::string& out, const serve::generation_delta& delta) const {
    if (context_.continuous_usage) {
      out += R"(,"usage":)";
      append_usage(out, {delta.prompt_tokens, delta.cached_tokens,
                         context_.hide_completion ? 0 : delta.completion_tokens});
    } else if (context_.include_usage) {
      out += R"(,"usage":null)";
    }
  }

  static constexpr const char* event_type = "text/event-stream; charset=utf-8";

  const std::chrono::steady_clock::time_point made_;
  bool begun_ = false;
  std::string prefix_;
  std::vector<choice_state> choices_;
};

}  // namespace

std::shared_ptr<reply> stream_reply(answer_context context, const answer_format& format,
                                    std::shared_ptr<engine> engine_door,
                                    std::shared_ptr<responder> to) {
  return std::make_shared<stream>(std::move(context), format, std::move(engine_door),
                                  std::move(to));
}

}  // namespace tandem::gateway::openai
