// What a message between two processes costs: one request and its answer over the link (shared
// memory, tcp) beside CAF's own TCP middleman, and 64 MB tensors beside a bare ucx_perftest of the
// same size and transport. Alternating, one run.
//   bench_link --rounds 5 --json
#include "actors/link.hpp"
#include "actors/tensor_ref.hpp"
#include "runtime/log.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>
#include <CLI/CLI.hpp>
#include <caf/all.hpp>
#include <caf/io/all.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

namespace {

using namespace tandem;
using steady = std::chrono::steady_clock;

struct options {
  int rounds = 5;
  int requests = 4'000;  // a round
  int tensors = 12;      // a round
  std::size_t megabytes = 64;
  bool block = false;
  bool json = false;
  std::string serve;  // internal: what the other process does
};

struct question {
  std::uint64_t number = 0;
  std::string text = "a small message, as orders to devices are";
};
struct delivery {
  actors::tensor_ref tensor;
};

template <class Inspector>
auto inspect(Inspector& f, question& x) {
  return f(caf::meta::type_name("question"), x.number, x.text);
}
template <class Inspector>
auto inspect(Inspector& f, delivery& x) {
  return f(caf::meta::type_name("delivery"), x.tensor);
}

using server_actor = caf::typed_actor<caf::replies_to<question>::with<question>,
                                      caf::replies_to<delivery>::with<std::uint64_t>>;

server_actor::behavior_type server(server_actor::pointer) {
  return {
      [](const question& what) { return what; },
      [](const delivery& what) { return static_cast<std::uint64_t>(what.tensor.data->size()); },
  };
}

struct bench_config : caf::actor_system_config {
  bench_config() {
    add_message_type<question>("bench::question");
    add_message_type<delivery>("bench::delivery");
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", 2);
  }
};

template <class T>
T wanted_or_exit(result<T> made) {
  if (made) return *std::move(made);
  fmt::print(stderr, "bench_link: {}\n", made.error().detail);
  std::exit(1);
}

bool blocking = false;  // of every fabric of this run

transport::fabric_options fabric_over(const std::string& transports) {
  transport::fabric_options made;
  made.block = blocking;
  made.transports = transports;
  made.silent_after = std::chrono::seconds(30);
  return made;
}

// "caf" or a UCX_TLS.
int serve(const std::string& over) {
  bench_config config;
  if (over == "caf") {
    config.load<caf::io::middleman>();
  } else if (const auto loaded = actors::load_link(config, fabric_over(over)); !loaded) {
    fmt::print(stderr, "bench_link: {}\n", loaded.error().detail);
    return 1;
  }
  caf::actor_system system(config);
  const auto actor = system.spawn(server);
  if (over == "caf") {
    fmt::print("{}\n", *system.middleman().publish(actor, 0, "127.0.0.1"));
  } else {
    actors::link_of(system).publish("server", actor);
    fmt::print("{}\n", actors::link_of(system).address());
  }
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
  }
  caf::anon_send_exit(actor, caf::exit_reason::user_shutdown);
  return 0;
}

// This program once more, as a server; it ends when its input does.
class other_process {
 public:
  explicit other_process(std::string over) {
    int in[2];
    int out[2];
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) std::exit(1);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], 0);
      dup2(out[1], 1);
      std::string name = "bench_link";
      std::string flag = "--serve";
      std::string block = "--block";
      char* arguments[] = {name.data(), flag.data(), over.data(), blocking ? block.data() : nullptr,
                           nullptr};
      execv("/proc/self/exe", arguments);
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    in_ = in[1];
    FILE* lines = fdopen(out[0], "r");
    char text[256] = {};
    if (std::fgets(text, sizeof text, lines) == nullptr) std::exit(1);
    address = text;
    address.pop_back();
    std::fclose(lines);
  }
  ~other_process() {
    close(in_);
    waitpid(pid_, nullptr, 0);
  }
  other_process(const other_process&) = delete;
  other_process& operator=(const other_process&) = delete;
  std::string address;

 private:
  pid_t pid_ = -1;
  int in_ = -1;
};

// An actor that asks one question after the other; it answers with the microseconds of each.
struct asker_state {
  server_actor server;
  std::vector<double> took;
  int left = 0;
  caf::response_promise done;
};

void ask_next(caf::stateful_actor<asker_state>* self) {
  auto& state = self->state;
  if (state.left-- == 0) return state.done.deliver(std::exchange(state.took, {}));
  const auto began = steady::now();
  self->request(state.server, caf::infinite, question{}).then([self, began](const question&) {
    self->state.took.push_back(
        std::chrono::duration<double, std::micro>(steady::now() - began).count());
    ask_next(self);
  });
}

caf::behavior asker(caf::stateful_actor<asker_state>* self, server_actor of) {
  self->state.server = std::move(of);
  return {[self](int count) {
    self->state.left = count;
    self->state.done = self->make_response_promise();
    ask_next(self);
    return self->state.done;
  }};
}

// One way to a server: its process, our side of it, and what was measured.
class way {
 public:
  explicit way(const std::string& over) : name(over), process_(over) {
    if (over == "caf") {
      config_.load<caf::io::middleman>();
    } else if (const auto loaded = actors::load_link(config_, fabric_over(over)); !loaded) {
      fmt::print(stderr, "bench_link: {}\n", loaded.error().detail);
      std::exit(1);
    }
    system_ = std::make_unique<caf::actor_system>(config_);
    if (over == "caf") {
      server_ = *system_->middleman().remote_actor<server_actor>(
          "127.0.0.1", static_cast<std::uint16_t>(std::stoi(process_.address)));
    } else {
      caf::scoped_actor self(*system_);
      actors::link_of(*system_)
          .resolve<server_actor>(self, process_.address, "server", std::chrono::seconds(10))
          .receive(
              [&](const caf::strong_actor_ptr& found) {
                server_ = caf::actor_cast<server_actor>(found);
              },
              fail);
    }
    asker_ = system_->spawn(asker, server_);
  }
  ~way() { caf::anon_send_exit(asker_, caf::exit_reason::user_shutdown); }
  way(const way&) = delete;
  way& operator=(const way&) = delete;

  void ask(int count) {
    caf::scoped_actor self(*system_);
    self->request(asker_, caf::infinite, count)
        .receive(
            [&](const std::vector<double>& took) {
              microseconds.insert(microseconds.end(), took.begin(), took.end());
            },
            fail);
  }
  // GB/s of `count` tensors, so many of them on their way at a time.
  double carry(std::size_t bytes, int count, int at_once) {
    if (!tensor_.data)
      tensor_ = wanted_or_exit(actors::make_tensor(actors::link_of(*system_).buffers(),
                                                   actors::tensor_type::u8, {bytes}));
    std::ranges::fill(tensor_.data->bytes(), std::byte{1});
    caf::scoped_actor self(*system_);
    const auto began = steady::now();
    int sent = 0;
    int back = 0;
    const auto send_one = [&] {
      ++sent;
      self->send(server_, delivery{tensor_});
    };
    while (sent < std::min(at_once, count)) send_one();
    self->receive_while([&] { return back < count; })([&](std::uint64_t) {
      ++back;
      if (sent < count) send_one();
    });
    const double took = std::chrono::duration<double>(steady::now() - began).count();
    return static_cast<double>(bytes) * count / took / 1e9;
  }

  const std::string name;
  std::vector<double> microseconds;
  std::vector<double> one_at_a_time;
  std::vector<double> streaming;
  std::vector<double> bare_latency;
  std::vector<double> bare_checked;  // with endpoints that notice errors, as ours do
  std::vector<double> bare_streaming;

 private:
  static void fail(const caf::error& why) {
    fmt::print(stderr, "bench_link: {}\n", caf::to_string(why));
    std::exit(1);
  }
  bench_config config_;
  other_process process_;
  std::unique_ptr<caf::actor_system> system_;
  server_actor server_;
  caf::actor asker_;
  actors::tensor_ref tensor_;
};

// With endpoints that notice errors it sometimes stands still over tcp.
constexpr int perftest_takes_at_most_s = 5;

// GB/s of ucx_perftest; 0 when it is not installed or stood still.
double perftest(const std::string& transports, const std::string& test, std::size_t bytes,
                int count) {
  static int port = 23'400;
  ++port;
  const std::string command = fmt::format(
      "export UCX_TLS={0} UCX_NET_DEVICES=lo UCX_WARN_UNUSED_ENV_VARS=n; "
      "timeout {5} ucx_perftest -p {1} >/dev/null 2>&1 & for i in $(seq 100); do "
      "timeout {5} ucx_perftest 127.0.0.1 -p {1} -t {2} -s {3} -n {4} -w 2 -v -f 2>/dev/null | "
      "grep -E '^ *[0-9]+,' && break; sleep 0.02; done; wait",
      transports == "tcp,self" ? "tcp,self" : "posix,self,tcp", port, test, bytes, count,
      perftest_takes_at_most_s);
  FILE* out = popen(command.c_str(), "r");
  if (out == nullptr) return 0.0;
  std::string text;
  char part[512];
  while (std::fgets(part, sizeof part, out) != nullptr) text += part;
  pclose(out);
  // iterations, typical, average and overall latency (us), average and overall MiB/s, ...
  std::vector<double> fields;
  for (std::size_t at = 0; at < text.size();) {
    fields.push_back(std::atof(text.c_str() + at));
    const auto comma = text.find(',', at);
    if (comma == std::string::npos) break;
    at = comma + 1;
  }
  return fields.size() < 6 ? 0.0 : fields[5] * 1024 * 1024 / 1e9;
}

double quantile(std::vector<double> of, double q) {
  if (of.empty()) return 0.0;
  std::ranges::sort(of);
  return of[static_cast<std::size_t>(q * static_cast<double>(of.size() - 1))];
}
double median(const std::vector<double>& of) { return quantile(of, 0.5); }
void add_if_measured(std::vector<double>& to, double value) {
  if (value > 0) to.push_back(value);
}

void measure(const options& wanted) {
  way memory("posix,self");
  way tcp("tcp,self");
  way caf_tcp("caf");
  const std::size_t bytes = wanted.megabytes << 20;
  for (auto* one : {&memory, &tcp, &caf_tcp}) one->ask(500);
  for (auto* one : {&memory, &tcp, &caf_tcp}) one->microseconds.clear();
  for (int round = 0; round < wanted.rounds; ++round) {
    for (auto* one : {&memory, &tcp, &caf_tcp}) one->ask(wanted.requests);
    for (auto* one : {&memory, &tcp}) {
      if (wanted.tensors == 0) continue;
      if (round == 0) one->carry(bytes, 8, 3);  // pages are touched once
      add_if_measured(one->bare_latency, perftest(one->name, "ucp_am_lat", bytes, wanted.tensors));
      add_if_measured(one->bare_checked,
                      perftest(one->name, "ucp_am_lat -e", bytes, wanted.tensors));
      one->one_at_a_time.push_back(one->carry(bytes, wanted.tensors, 1));
      add_if_measured(one->bare_streaming, perftest(one->name, "ucp_am_bw", bytes, wanted.tensors));
      one->streaming.push_back(one->carry(bytes, wanted.tensors, 3));
    }
  }
  std::string json;
  for (const auto* one : {&memory, &tcp, &caf_tcp}) {
    const double p50 = median(one->microseconds);
    const double p99 = quantile(one->microseconds, 0.99);
    if (!wanted.json)
      fmt::print("{:<12} request and answer: p50 {:6.1f} us, p99 {:6.1f} us\n", one->name, p50,
                 p99);
    json += fmt::format("{}\n  \"{}\": {{\"request_us_p50\": {:.1f}, \"request_us_p99\": {:.1f}",
                        json.empty() ? "" : ",", one->name, p50, p99);
    if (!one->streaming.empty()) {
      const double single = median(one->one_at_a_time);
      const double bare_single = median(one->bare_latency);
      const double bare_checked = median(one->bare_checked);
      const double stream = median(one->streaming);
      const double bare_stream = median(one->bare_streaming);
      if (!wanted.json)
        fmt::print(
            "{:<12} {} MB tensors: one at a time {:.2f} GB/s of bare {:.2f} ({:.0f} %; with error "
            "handling {:.2f}), three at a time {:.2f} of bare {:.2f} ({:.0f} %)\n",
            one->name, wanted.megabytes, single, bare_single, 100 * single / bare_single,
            bare_checked, stream, bare_stream, 100 * stream / bare_stream);
      json += fmt::format(
          ", \"tensor_GBps\": {:.2f}, \"bare_am_lat_GBps\": {:.2f}, "
          "\"bare_am_lat_e_GBps\": {:.2f}, "
          "\"tensors_of_three_GBps\": {:.2f}, \"bare_am_bw_GBps\": {:.2f}",
          single, bare_single, bare_checked, stream, bare_stream);
    }
    json += "}";
  }
  if (wanted.json)
    fmt::print(
        "{{\"rounds\": {}, \"requests_a_round\": {}, \"tensors_a_round\": {}, "
        "\"tensor_MB\": {},{}\n}}\n",
        wanted.rounds, wanted.requests, wanted.tensors, wanted.megabytes, json);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"What a message and a tensor between two processes cost"};
  options wanted;
  app.add_option("--rounds", wanted.rounds)->check(CLI::Range(1, 1000));
  app.add_option("--requests", wanted.requests)->check(CLI::Range(10, 1'000'000));
  app.add_option("--tensors", wanted.tensors)->check(CLI::Range(0, 1000));
  app.add_option("--megabytes", wanted.megabytes)->check(CLI::Range(1, 512));
  app.add_flag("--block", wanted.block, "Fabrics never spin");
  app.add_flag("--json", wanted.json);
  app.add_option("--serve", wanted.serve)->group("");
  CLI11_PARSE(app, argc, argv);
  (void)open_log(log_level::warning, "");
  blocking = wanted.block;
  if (!wanted.serve.empty()) return serve(wanted.serve);
  measure(wanted);
}
