#include "gateway/command/chat_session.hpp"

#include "gateway/command/event_stream.hpp"

#include <fmt/format.h>

namespace tandem::gateway::command {
namespace {

using steady = std::chrono::steady_clock;
using text::value;

value message(const char* role, std::string content) {
  return value::object{{"role", role}, {"content", std::move(content)}};
}

const value* member(const value* object, std::string_view key) {
  return object ? object->find(key) : nullptr;
}

std::int64_t integer_of(const value* found) {
  const std::int64_t* number = found ? found->if_int() : nullptr;
  return number ? *number : 0;
}

// The chunks of one answer put together.
struct answer_reader {
  const std::function<void(std::string_view)>& on_text;
  steady::time_point asked = steady::now();
  chat_answer answer;
  std::optional<error> failed;
  bool ended = false;
  event_stream events;

  bool take(std::string_view bytes) {
    return events.feed(bytes, [this](std::string_view data) { return take_event(data); });
  }

  bool take_event(std::string_view data) {
    if (data == "[DONE]") {
      ended = true;
      return true;  // the connection's end comes next, and may be used again
    }
    const auto chunk = value::from_json(data);
    if (!chunk) {
      failed = error{errc::io, "the stream holds something that is no JSON", {}};
      return false;
    }
    if (const value* why = chunk->find("error"); why && !why->is_null()) {
      const value* words = member(why, "message");
      failed = error{errc::unavailable,
                     words && words->if_string() ? *words->if_string() : why->to_json(),
                     {}};
      return false;
    }
    if (const value* usage = chunk->find("usage"); usage && usage->if_object()) {
      answer.prompt_tokens = integer_of(usage->find("prompt_tokens"));
      answer.completion_tokens = integer_of(usage->find("completion_tokens"));
    }
    const value* choices = chunk->find("choices");
    if (choices && choices->if_array() && !choices->if_array()->empty()) {
      take_choice(choices->if_array()->front());
    }
    return true;
  }

  void take_choice(const value& choice) {
    const value* content = member(choice.find("delta"), "content");
    if (content && content->if_string() && !content->if_string()->empty()) {
      if (answer.text.empty()) answer.first_after = steady::now() - asked;
      answer.text += *content->if_string();
      on_text(*content->if_string());
    }
    const value* finish = choice.find("finish_reason");
    if (finish && finish->if_string()) answer.finish_reason = *finish->if_string();
  }
};

}  // namespace

chat_session::chat_session(http_client client, chat_options options)
    : client_(std::move(client)), options_(std::move(options)) {
  reset();
}

std::string chat_session::request_body(const value::array& messages) const {
  value body = value::object{{"model", options_.model},
                             {"messages", messages},
                             {"stream", true},
                             {"stream_options", value::object{{"include_usage", true}}}};
  if (options_.temperature) body.set("temperature", *options_.temperature);
  if (options_.top_p) body.set("top_p", *options_.top_p);
  if (options_.max_tokens) body.set("max_tokens", *options_.max_tokens);
  if (options_.seed) body.set("seed", *options_.seed);
  return body.to_json();
}

result<chat_answer> chat_session::ask(const std::string& question,
                                      const std::function<void(std::string_view)>& on_text,
                                      const std::function<bool()>& stopped) {
  value::array messages = messages_;
  messages.push_back(message("user", question));
  answer_reader reader{on_text, steady::now(), {}, {}, false, {}};
  http_call call;
  call.method = "POST";
  call.target = "/v1/chat/completions";
  call.body = request_body(messages);
  call.silence_max = std::chrono::minutes(10);  // the server's heartbeats end silence sooner
  call.on_bytes = [&](std::string_view bytes) { return reader.take(bytes); };
  call.stopped = stopped;
  const auto done = client_.exchange(call);
  if (reader.failed) return *reader.failed;
  const bool cut = !done && done.error().code == errc::cancelled;
  if (!done && !cut) return done.error();
  if (done && done->status / 100 != 2) return refusal_of(client_.address(), *done);
  if (done && !reader.ended) {
    return error{
        errc::io, fmt::format("{} ended the stream before [DONE]", client_.address().text), {}};
  }
  reader.answer.whole_after = steady::now() - reader.asked;
  messages.push_back(message("assistant", reader.answer.text));
  messages_ = std::move(messages);
  return reader.answer;
}

void chat_session::set_system(std::string words) {
  options_.system = std::move(words);
  reset();
}

void chat_session::reset() {
  messages_.clear();
  if (!options_.system.empty()) messages_.push_back(message("system", options_.system));
}

std::size_t chat_session::turn_count() const {
  return (messages_.size() - (options_.system.empty() ? 0 : 1)) / 2;
}

}  // namespace tandem::gateway::command
