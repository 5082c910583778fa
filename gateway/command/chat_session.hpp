// A conversation over the HTTP API: the history, and one streamed answer at a time.
#pragma once

#include "gateway/command/http_client.hpp"

#include <chrono>
#include <functional>
#include <optional>
#include <string>

namespace tandem::gateway::command {

struct chat_options {
  std::string model;
  std::string system;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int> max_tokens;
  std::optional<std::int64_t> seed;
};

struct chat_answer {
  std::string text;
  std::string finish_reason;  // empty when it was stopped
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;
  std::chrono::nanoseconds first_after{0};  // from asking to the first text
  std::chrono::nanoseconds whole_after{0};
};

class chat_session {
 public:
  chat_session(http_client client, chat_options options);

  // Asks, calls `on_text` with each piece, and remembers question and answer. `stopped` cuts the
  // answer short: what came so far counts as the answer. After an error nothing is remembered.
  result<chat_answer> ask(const std::string& question,
                          const std::function<void(std::string_view)>& on_text,
                          const std::function<bool()>& stopped);

  void set_system(std::string words);  // and begins anew
  void reset();
  std::size_t turn_count() const;
  const chat_options& options() const { return options_; }

 private:
  std::string request_body(const text::value::array& messages) const;

  http_client client_;
  chat_options options_;
  text::value::array messages_;
};

}  // namespace tandem::gateway::command
