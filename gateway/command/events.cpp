// `tandem events`: what changed, and with --follow what changes.
#include "gateway/command/commands.hpp"
#include "gateway/command/event_stream.hpp"
#include "gateway/command/interrupt.hpp"
#include "gateway/command/json_view.hpp"
#include "gateway/command/lease_words.hpp"

#include <fmt/format.h>
#include <CLI/Validators.hpp>

#include <algorithm>
#include <chrono>
#include <memory>
#include <ostream>
#include <thread>

namespace tandem::gateway::command {
namespace {

using steady = std::chrono::steady_clock;
using text::value;
using namespace std::chrono_literals;

constexpr auto retry_every = 1s;
constexpr auto lost_max = 60s;
constexpr auto look_every = 20ms;

struct events_call {
  int limit = 20;
  bool follow = false;
};

void print(const invocation& call, const value& event) {
  call.io.out << (call.json ? event.to_json() : event_line(event)) << '\n' << std::flush;
}

// One connection's worth; `after` is the last event that was printed. Good: the server ended it.
result<void> read_stream(const invocation& call, http_client& client, std::int64_t& after,
                         const interrupt_watch& ctrl_c) {
  std::optional<error> failed;
  event_stream frames;
  http_call asked;
  asked.target = fmt::format("/admin/events?after={}", after);
  asked.silence_max = 10min;  // the server's heartbeats end silence sooner
  asked.stopped = [&] { return ctrl_c.seen(); };
  asked.on_bytes = [&](std::string_view bytes) {
    return frames.feed(bytes, [&](std::string_view data) {
      const auto event = value::from_json(data);
      if (!event) {
        failed = error{errc::bad_file, "the event stream holds something that is no JSON", {}};
      } else if (const value& why = member(*event, "error"); !why.is_null()) {
        failed = error{errc::unavailable, words(member(why, "message")), {}};
      } else {
        after = integer_or(member(*event, "sequence"), after);
        print(call, *event);
      }
      return !failed;
    });
  };
  const auto answer = client.exchange(asked);
  if (failed) return *failed;
  if (!answer) return answer.error();
  if (answer->status / 100 != 2) return refusal_of(client.address(), *answer);
  return {};
}

bool is_passing(const error& why) {
  return why.code == errc::io || why.code == errc::timed_out || why.code == errc::unavailable;
}

// Until Ctrl-C; a server that is away is waited for as long as a restart may take.
int follow(const invocation& call, http_client& client, std::int64_t after) {
  const interrupt_watch ctrl_c;
  auto heard_at = steady::now();
  bool troubled = false;
  for (;;) {
    const std::int64_t before = after;
    const auto streamed = read_stream(call, client, after, ctrl_c);
    if (ctrl_c.seen()) return done;
    if (streamed || after != before) {
      heard_at = steady::now();
      troubled = false;
    }
    if (!streamed) {
      const error& why = streamed.error();
      if (!is_passing(why) || steady::now() - heard_at >= lost_max) return refuse(call.io, why);
      if (!troubled)
        call.io.err << "tandem: " << why.detail << "; trying again for a minute" << std::endl;
      troubled = true;
    }
    const auto until = steady::now() + retry_every;
    while (steady::now() < until && !ctrl_c.seen()) std::this_thread::sleep_for(look_every);
    if (ctrl_c.seen()) return done;
  }
}

int run_events(const invocation& call, const events_call& wanted) {
  auto client = connect(call);
  if (!client) return refuse_usage(call.io, client.error().detail);
  const auto history =
      client->get_json(fmt::format("/admin/leases/history?limit={}", std::max(wanted.limit, 1)));
  if (!history) return refuse(call.io, history.error());
  const value::array& events = list(member(*history, "data"));
  if (wanted.limit > 0)
    for (auto it = events.rbegin(); it != events.rend(); ++it) print(call, *it);
  if (!wanted.follow) return done;
  return follow(call, *client,
                events.empty() ? 0 : integer_or(member(events.front(), "sequence"), 0));
}

}  // namespace

void add_events(CLI::App& app, invocation& call) {
  CLI::App* command =
      add_command(app, "events", "What changed: moves, refusals, devices and jobs, oldest first",
                  "tandem events --follow --limit 5\n\n--follow goes on until Ctrl-C; with --json "
                  "each event is a line.");
  add_server_options(*command, call);
  add_json_option(*command, call);
  auto wanted = std::make_shared<events_call>();
  command->add_option("--limit", wanted->limit, "At most so many of the past")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  command->add_flag("-f,--follow", wanted->follow, "Those to come too, as they come");
  command->callback([wanted, &call] { call.status = run_events(call, *wanted); });
}

}  // namespace tandem::gateway::command
