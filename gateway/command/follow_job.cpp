#include "gateway/command/follow_job.hpp"

#include "gateway/command/event_stream.hpp"
#include "gateway/command/interrupt.hpp"
#include "gateway/command/json_view.hpp"
#include "gateway/command/terminal.hpp"
#include "gateway/command/training_line.hpp"

#include <fmt/format.h>

#include <ostream>
#include <set>
#include <thread>

namespace tandem::gateway::command {
namespace {

using steady = std::chrono::steady_clock;
using text::value;

constexpr std::chrono::milliseconds look_every{20};

// Waits, but not longer than the caller has patience.
bool wait_for(std::chrono::milliseconds time, const std::function<bool()>& stopped) {
  const auto until = steady::now() + time;
  while (steady::now() < until) {
    if (stopped && stopped()) return false;
    std::this_thread::sleep_for(look_every);
  }
  return true;
}

// What is worth another try: the server is away, restarts, or is too busy.
bool is_passing(const error& why) {
  return why.code == errc::io || why.code == errc::timed_out || why.code == errc::unavailable;
}

struct stream_reader {
  const follow_options& options;
  std::set<std::string, std::less<>>& seen;
  event_stream frames;
  bool whole = false;
  bool any = false;
  std::optional<error> failed;

  bool take(std::string_view data) {
    any = true;
    if (data == "[DONE]") {
      whole = true;
      return true;
    }
    const auto object = value::from_json(data);
    if (!object) {
      failed = error{errc::bad_file, "the event stream holds something that is no JSON", {}};
      return false;
    }
    if (const value& why = member(*object, "error"); !why.is_null()) {
      failed = error{errc::unavailable, words(member(why, "message")), {}};
      return false;
    }
    const job_event event = event_from(*object);
    const bool fresh = event.id.empty() || seen.insert(event.id).second;
    if (fresh && options.on_event) options.on_event(event);
    return true;
  }
};

// One connection's worth of events. Good when the stream came to its own end.
result<void> read_stream(http_client& client, const std::string& id, const follow_options& options,
                         std::set<std::string, std::less<>>& seen, bool& heard) {
  stream_reader reader{options, seen, {}, false, false, {}};
  http_call call;
  call.target = job_target(id, "/events?stream=true");
  call.silence_max = std::chrono::minutes(10);  // the server's heartbeats end silence sooner
  call.stopped = options.stopped;
  call.on_bytes = [&](std::string_view bytes) {
    heard = true;
    return reader.frames.feed(bytes, [&](std::string_view data) { return reader.take(data); });
  };
  const auto answer = client.exchange(call);
  if (reader.failed) return *reader.failed;
  if (!answer) return answer.error();
  if (answer->status / 100 != 2) return refusal_of(client.address(), *answer);
  if (!answer->header("content-type").starts_with("text/event-stream")) {
    return error{errc::unsupported,
                 fmt::format("{} has no event stream for jobs", client.address().text),
                 {}};
  }
  if (!reader.whole) {
    return error{
        errc::io, fmt::format("{} ended the event stream early", client.address().text), {}};
  }
  return {};
}

std::string how_to_go_on(const invocation& call, const std::string& id) {
  const std::string at = address_words(call);
  return fmt::format("follow it with `tandem job {}{} --follow`, stop it with `tandem cancel {}{}`",
                     id, at, id, at);
}

}  // namespace

result<job_view> follow_job(http_client& client, const std::string& id,
                            const follow_options& options) {
  std::set<std::string, std::less<>> seen;
  auto heard_at = steady::now();
  bool troubled = false;
  for (;;) {
    bool heard = false;
    result<void> streamed = read_stream(client, id, options, seen, heard);
    result<job_view> job = streamed ? find_job(client, id) : streamed.error();
    if (job && job->ended()) return job;
    if (job || heard) {
      heard_at = steady::now();
      troubled = false;
    }
    if (!job) {
      if (!is_passing(job.error())) return job.error();
      if (steady::now() - heard_at >= options.lost_max) return job.error();
      if (!troubled && options.on_trouble) options.on_trouble(job.error().detail);
      troubled = true;
    }
    if (!wait_for(options.retry_every, options.stopped)) {
      return error{errc::cancelled, "stopped", {}};
    }
  }
}

std::string address_words(const invocation& call) {
  const std::string_view from_environment = environment_value(call.io, "TANDEM_ADDRESS");
  const std::string_view known = from_environment.empty() ? default_address : from_environment;
  return call.address == known ? std::string() : " --address " + call.address;
}

int follow_on_screen(const invocation& call, http_client& client, const std::string& id,
                     bool events_as_json, job_view& ended) {
  const console& io = call.io;
  const interrupt_watch ctrl_c;
  result<job_view> job = error{};
  {
    training_line line(io.err, io.err_is_terminal, size_of_terminal(io).columns);
    follow_options options;
    options.stopped = [&] { return ctrl_c.seen(); };
    options.on_event = [&](const job_event& event) {
      if (events_as_json) {
        io.out << event.whole.to_json() << std::endl;
      } else {
        line.show(event);
      }
    };
    options.on_trouble = [&](std::string_view why) {
      line.say(fmt::format("{}; trying again for a minute", why));
    };
    job = follow_job(client, id, options);
  }
  if (!job && job.error().code == errc::cancelled) {
    return refuse(io, {errc::cancelled,
                       fmt::format("{} goes on without you: {}", id, how_to_go_on(call, id)),
                       {}});
  }
  if (!job) {
    error why = job.error();
    why.detail += fmt::format("; {} may go on: {}", id, how_to_go_on(call, id));
    return refuse(io, why);
  }
  ended = std::move(*job);
  if (ended.status == "failed") {
    return refuse(
        io, {errc::unavailable,
             fmt::format("{} failed: {}", id,
                         ended.error_message.empty() ? "no reason was given" : ended.error_message),
             {}});
  }
  if (ended.status == "cancelled") {
    return refuse(io, {errc::cancelled, fmt::format("{} was cancelled", id), {}});
  }
  return done;
}

}  // namespace tandem::gateway::command
