// `tandem top`: a live screen of devices by holder, latencies against targets, and jobs. Off a
// terminal it prints one screen and ends.
#include "gateway/command/commands.hpp"
#include "gateway/command/interrupt.hpp"
#include "gateway/command/live_screen.hpp"
#include "gateway/command/terminal.hpp"
#include "gateway/command/top_screen.hpp"

#include <fmt/format.h>
#include <CLI/Validators.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <ostream>
#include <thread>

namespace tandem::gateway::command {
namespace {

using steady = std::chrono::steady_clock;
using text::value;
using namespace std::chrono_literals;

constexpr auto look_every = 100ms;  // at keys and at the terminal's size
constexpr auto answer_max = 5s;

struct top_call {
  double interval_s = 1.0;
  int window_minutes = 5;
};

using stop_asked = std::function<bool()>;

result<value> get(http_client& client, std::string target, const stop_asked& stopped) {
  http_call call;
  call.target = std::move(target);
  call.silence_max = answer_max;
  call.stopped = stopped;
  const auto answer = client.exchange(call);
  if (!answer) return answer.error();
  if (answer->status / 100 != 2) return refusal_of(client.address(), *answer);
  return value::from_json(answer->body);
}

class watcher {
 public:
  watcher(http_client& client, const top_call& wanted)
      : client_(client), memory_(std::int64_t{wanted.window_minutes} * 60'000) {}

  result<top_state> look(const stop_asked& stopped) {
    const auto leases = get(client_, "/admin/leases", stopped);
    if (!leases) return leases.error();
    const auto history =
        get(client_, fmt::format("/admin/leases/history?limit=1000&after={}", memory_.newest()),
            stopped);
    if (!history) return history.error();
    const auto cluster = get(client_, "/admin/cluster", stopped);
    const std::chrono::duration<double> age = steady::now() - began_;
    top_state state = memory_.look(*leases, *history, cluster ? *cluster : value(), age.count());
    state.address = client_.address().text;
    return state;
  }

 private:
  http_client& client_;
  top_memory memory_;
  const steady::time_point began_ = steady::now();
};

bool wants_colours(const console& io) {
  return io.out_is_terminal && environment_value(io, "NO_COLOR").empty();
}

int print_once(const invocation& call, watcher& from, const top_call& wanted) {
  const auto first = from.look({});
  if (!first) return refuse(call.io, first.error());
  std::this_thread::sleep_for(std::chrono::duration<double>(wanted.interval_s));  // rates need two
  const auto state = from.look({});
  if (!state) return refuse(call.io, state.error());
  const terminal_size size = size_of_terminal(call.io);
  for (const std::string& line : draw_top(*state, size.columns, size.rows, wants_colours(call.io)))
    call.io.out << line << '\n';
  call.io.out << std::flush;
  return done;
}

int run_live(const invocation& call, watcher& from, const top_call& wanted) {
  // Before the screen is taken: a server that is not there is said in one line.
  auto state = from.look({});
  if (!state) return refuse(call.io, state.error());
  const interrupt_watch ctrl_c;
  live_screen screen(call.io);
  bool leave = false;
  const stop_asked stopped = [&] {
    const char key = screen.key(0ms);
    leave = leave || key == 'q' || key == 'Q' || ctrl_c.seen() || screen.ended();
    return leave;
  };
  top_state shown = *std::move(state);
  const std::chrono::duration<double> interval(wanted.interval_s);
  while (!stopped()) {
    terminal_size size = size_of_terminal(call.io);
    screen.show(draw_top(shown, size.columns, size.rows, wants_colours(call.io)));
    for (const auto next = steady::now() + interval; steady::now() < next && !leave;) {
      const char key = screen.key(look_every);
      leave = key == 'q' || key == 'Q' || stopped();
      const terminal_size now = size_of_terminal(call.io);
      if (now.columns == size.columns && now.rows == size.rows) continue;
      size = now;
      screen.show(draw_top(shown, size.columns, size.rows, wants_colours(call.io)));
    }
    if (leave) break;
    if (auto next = from.look(stopped))
      shown = *std::move(next);
    else
      shown.trouble = next.error().detail;
  }
  return done;
}

int run_top(const invocation& call, const top_call& wanted) {
  auto client = connect(call);
  if (!client) return refuse_usage(call.io, client.error().detail);
  watcher from(*client, wanted);
  const bool live = call.io.out_is_terminal && call.io.in_is_terminal &&
                    environment_value(call.io, "TERM") != "dumb";
  return live ? run_live(call, from, wanted) : print_once(call, from, wanted);
}

}  // namespace

void add_top(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(
      app, "top", "A live screen: devices by holder, latencies, jobs",
      "tandem top --minutes 10\n\nq or Ctrl-C leaves. Off a terminal it prints one screen and "
      "ends; NO_COLOR is honoured.\nFor programs: `tandem leases --json`, /metrics.");
  add_server_options(*command, call);
  auto wanted = std::make_shared<top_call>();
  command->add_option("--interval", wanted->interval_s, "Seconds between two looks")
      ->check(CLI::Range(0.05, 60.0))
      ->capture_default_str();
  command->add_option("--minutes", wanted->window_minutes, "How far the timelines go back")
      ->check(CLI::Range(1, 120))
      ->capture_default_str();
  command->callback([wanted, &call] { call.status = run_top(call, *wanted); });
}

}  // namespace tandem::gateway::command
