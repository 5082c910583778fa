// Following a job over its event stream: every event once, over broken connections and a platform
// that is started again.
#pragma once

#include "gateway/command/invocation.hpp"
#include "gateway/command/jobs.hpp"

#include <chrono>
#include <functional>
#include <string>

namespace tandem::gateway::command {

struct follow_options {
  std::function<void(const job_event&)> on_event;
  std::function<void(std::string_view)> on_trouble;  // the connection is gone, and is tried again
  std::function<bool()> stopped;
  std::chrono::milliseconds lost_max{60'000};  // without a server: then it is an error
  std::chrono::milliseconds retry_every{500};
};

// The job once it has ended. errc::cancelled when `stopped` said so: the job goes on.
result<job_view> follow_job(http_client& client, const std::string& id,
                            const follow_options& options);

// `train` and `job --follow` on the screen: lines or a bar on stderr; with `events_as_json` each
// event as a line of JSON on stdout instead. Ctrl-C leaves the job alone and says how to go on. The
// exit status; `ended` is filled when the job has ended.
int follow_on_screen(const invocation& call, http_client& client, const std::string& id,
                     bool events_as_json, job_view& ended);

// " --address URL" when a command line that repeats this one needs it.
std::string address_words(const invocation& call);

}  // namespace tandem::gateway::command
