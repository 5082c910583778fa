#include "gateway/command/load_generator.hpp"

#include "gateway/command/event_stream.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <iterator>
#include <optional>
#include <random>
#include <thread>

namespace tandem::gateway::command {
namespace {

using steady = std::chrono::steady_clock;
using text::value;

double milliseconds(steady::duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

// What the streams share: who may begin another request.
struct schedule {
  const load_options& options;
  steady::time_point end;
  std::atomic<std::int64_t> begun{0};

  bool begin_another() {
    if (options.stopped && options.stopped()) return false;
    if (options.requests > 0) return begun.fetch_add(1) < options.requests;
    return steady::now() < end;
  }
};

// One answer as it arrives.
class answer_clock {
 public:
  explicit answer_clock(load_report& into) : into_(into) {}

  bool take(std::string_view bytes) {
    return events_.feed(bytes, [this](std::string_view data) { return take_event(data); });
  }
  void finish() {
    into_.answered += 1;
    into_.whole_ms.push_back(milliseconds(steady::now() - asked_));
    into_.prompt_tokens += prompt_tokens_;
    into_.completion_tokens += completion_tokens_;
  }
  const std::string& failure() const { return failure_; }
  bool ended() const { return ended_; }

 private:
  bool take_event(std::string_view data) {
    if (data == "[DONE]") {
      ended_ = true;
      return true;
    }
    const auto chunk = value::from_json(data);
    const value* why = chunk ? chunk->find("error") : nullptr;
    if (!chunk || (why && !why->is_null())) {
      failure_ = chunk ? why->to_json() : chunk.error().detail;
      return false;
    }
    if (const value* usage = chunk->find("usage"); usage && usage->if_object()) {
      prompt_tokens_ = integer(*usage, "prompt_tokens");
      completion_tokens_ = integer(*usage, "completion_tokens");
    }
    const value* choices = chunk->find("choices");
    if (choices && choices->if_array() && !choices->if_array()->empty()) note_text();
    return true;
  }

  static std::int64_t integer(const value& object, std::string_view key) {
    const value* found = object.find(key);
    return found && found->if_int() ? *found->if_int() : 0;
  }

  void note_text() {
    const auto now = steady::now();
    if (last_) {
      into_.between_ms.push_back(milliseconds(now - *last_));
    } else {
      into_.first_ms.push_back(milliseconds(now - asked_));
    }
    last_ = now;
  }

  load_report& into_;
  steady::time_point asked_ = steady::now();
  std::optional<steady::time_point> last_;
  event_stream events_;
  std::string failure_;
  std::int64_t prompt_tokens_ = 0;
  std::int64_t completion_tokens_ = 0;
  bool ended_ = false;
};

std::string request_body(const load_options& options, std::mt19937_64& random) {
  // The ends of a vocabulary hold control tokens and rare bytes.
  const std::int64_t size = std::max<std::int64_t>(options.vocabulary_size, 10);
  std::uniform_int_distribution<std::int64_t> id(size / 10, size * 9 / 10);
  value::array prompt;
  for (int i = 0; i < options.prompt_tokens; ++i) prompt.emplace_back(id(random));
  return value(value::object{{"model", options.model},
                             {"prompt", std::move(prompt)},
                             {"max_tokens", options.max_tokens},
                             {"min_tokens", options.max_tokens},
                             {"ignore_eos", true},
                             {"temperature", 0},
                             {"stream", true},
                             {"stream_options", value::object{{"include_usage", true}}}})
      .to_json();
}

// The failure of one request; empty when it was answered.
std::string ask_once(http_client& client, const load_options& options, std::string body,
                     load_report& into) {
  answer_clock clock(into);
  http_call call;
  call.method = "POST";
  call.target = "/v1/completions";
  call.body = std::move(body);
  call.silence_max = std::chrono::minutes(2);
  call.on_bytes = [&](std::string_view bytes) { return clock.take(bytes); };
  call.stopped = options.stopped;
  const auto answer = client.exchange(call);
  if (!answer) return answer.error().detail;
  if (answer->status / 100 != 2) return refusal_of(client.address(), *answer).detail;
  if (!clock.failure().empty()) return clock.failure();
  if (!clock.ended()) return "the stream ended before [DONE]";
  clock.finish();
  return {};
}

// A stream gives up after some failures: a server that refuses everything is not hammered.
load_report run_stream(schedule& shared, int index) {
  load_report report;
  auto client = http_client::create(shared.options.address, shared.options.api_key);
  if (!client) {
    report.failed = 1;
    report.first_failure = client.error().detail;
    return report;
  }
  std::mt19937_64 random(shared.options.seed * 1'000'003 + static_cast<std::uint64_t>(index));
  constexpr int failures_max = 10;
  while (report.failed < failures_max && shared.begin_another()) {
    std::string failure =
        ask_once(*client, shared.options, request_body(shared.options, random), report);
    if (failure.empty()) continue;
    if (shared.options.stopped && shared.options.stopped()) break;
    if (report.failed++ == 0) report.first_failure = std::move(failure);
  }
  return report;
}

void append(std::vector<double>& all, const std::vector<double>& more) {
  all.insert(all.end(), more.begin(), more.end());
}

}  // namespace

load_report run_load(const load_options& options) {
  ensure(options.streams > 0 && options.prompt_tokens > 0, "load without streams or prompts");
  const auto start = steady::now();
  const std::chrono::duration<double> length(options.seconds);
  schedule shared{options, start + std::chrono::duration_cast<steady::duration>(length)};
  std::vector<load_report> reports(static_cast<std::size_t>(options.streams));
  {
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < reports.size(); ++i) {
      threads.emplace_back([&, i] { reports[i] = run_stream(shared, static_cast<int>(i)); });
    }
    for (std::thread& thread : threads) thread.join();
  }
  load_report all;
  all.wall_s = std::chrono::duration<double>(steady::now() - start).count();
  for (const load_report& one : reports) {
    all.answered += one.answered;
    all.failed += one.failed;
    if (all.first_failure.empty()) all.first_failure = one.first_failure;
    all.prompt_tokens += one.prompt_tokens;
    all.completion_tokens += one.completion_tokens;
    append(all.first_ms, one.first_ms);
    append(all.between_ms, one.between_ms);
    append(all.whole_ms, one.whole_ms);
  }
  return all;
}

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const double rank = std::ceil(share * static_cast<double>(values.size()));
  const auto index = static_cast<std::ptrdiff_t>(std::max(rank, 1.0)) - 1;
  const auto nth = values.begin() + std::min(index, std::ssize(values) - 1);
  std::nth_element(values.begin(), nth, values.end());
  return *nth;
}

}  // namespace tandem::gateway::command
