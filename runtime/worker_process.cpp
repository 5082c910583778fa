#include "runtime/worker_process.hpp"

#include "runtime/log.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tandem {
namespace {

using clock = std::chrono::steady_clock;

constexpr auto ends_within = std::chrono::seconds(2);  // once it is asked to
constexpr int look_again_ms = 100;                     // whether that time is up
constexpr std::size_t input_bytes_max = 64 << 10;
constexpr std::size_t line_bytes_max = 4096;

error cannot_start(std::string_view what, int why) {
  return {errc::io,
          fmt::format("a worker process cannot be started: {}: {}", what, std::strerror(why)), ""};
}

void shut(int& file) {
  if (file >= 0) ::close(std::exchange(file, -1));
}

struct pipe_ends {
  int read = -1;
  int write = -1;
  pipe_ends() = default;
  pipe_ends(const pipe_ends&) = delete;
  pipe_ends& operator=(const pipe_ends&) = delete;
  ~pipe_ends() {
    shut(read);
    shut(write);
  }
  bool open() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return false;
    read = ends[0];
    write = ends[1];
    return true;
  }
};

// What the new process is born with: the three streams and nothing else of ours, no blocked
// signals, a session of its own.
struct birth {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;

  birth(int input, int output) {
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, input, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, output, STDERR_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    sigset_t usual;
    sigemptyset(&usual);
    for (const int signal : {SIGPIPE, SIGINT, SIGTERM, SIGABRT}) sigaddset(&usual, signal);
    posix_spawnattr_setsigdefault(&attributes, &usual);
    posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  ~birth() {
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
  }
  birth(const birth&) = delete;
  birth& operator=(const birth&) = delete;
};

// A line of its log keeps its level and gets our time; whatever else it says is worth a line too.
void pass_on(const std::string& name, std::string_view line) {
  constexpr std::size_t time_bytes = 25;  // "2026-11-23T08:22:18.123Z "
  constexpr std::size_t level_bytes = 8;
  auto level = log_level::info;
  if (line.size() > time_bytes + level_bytes && line[10] == 'T' && line[time_bytes - 2] == 'Z') {
    auto word = line.substr(time_bytes, level_bytes);
    word = word.substr(0, word.find(' '));
    if (const auto known = parse_log_level(word)) {
      level = *known;
      line.remove_prefix(time_bytes + level_bytes);
    }
  }
  log_line(level, "{}: {}", name, line);
}

}  // namespace

result<std::unique_ptr<worker_process>> worker_process::start(
    const worker_command& command, std::function<void(pid_t, std::string)> ended) {
  ensure(command.input.size() <= input_bytes_max, "a worker's input that fits into its pipe");
  pipe_ends in;
  pipe_ends out;
  if (!in.open() || !out.open()) return cannot_start("its pipes", errno);
  std::vector<std::string> words = {"tandem"};
  words.insert(words.end(), command.arguments.begin(), command.arguments.end());
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);

  auto made = std::unique_ptr<worker_process>(new worker_process);
  const birth how(in.read, out.write);
  if (const int fault = ::posix_spawn(&made->pid_, "/proc/self/exe", &how.files, &how.attributes,
                                      arguments.data(), environ);
      fault != 0)
    return cannot_start("this program's own file", fault);
  made->name_ = command.name;
  made->ended_ = std::move(ended);
  made->input_ = std::exchange(in.write, -1);
  made->output_ = std::exchange(out.read, -1);
  made->alive_ = static_cast<int>(::syscall(SYS_pidfd_open, made->pid_, 0));
  if (made->alive_ < 0) {
    const int fault = errno;
    ::kill(made->pid_, SIGKILL);
    (void)made->reap();
    return cannot_start("a pidfd of it", fault);
  }
  ::fcntl(made->output_, F_SETFL, O_NONBLOCK);
  // It fits into the pipe: nothing waits here. A worker that is dead already is the watcher's news.
  if (::write(made->input_, command.input.data(), command.input.size()) < 0)
    log_debug("worker {}: {}", command.name, std::strerror(errno));
  made->watcher_ = std::thread([self = made.get()] { self->watch(); });
  return made;
}

worker_process::~worker_process() {
  ask_to_end();
  if (watcher_.joinable()) watcher_.join();
  shut(input_);
  shut(output_);
  shut(alive_);
}

void worker_process::ask_to_end() {
  if (!asked_.exchange(true)) shut(input_);
}

void worker_process::watch() {
  clock::time_point end_by = clock::time_point::max();
  bool killed = false;
  std::array<pollfd, 2> waiting{pollfd{alive_, POLLIN, 0}, pollfd{output_, POLLIN, 0}};
  while (true) {
    const int ready = ::poll(waiting.data(), waiting.size(), look_again_ms);
    if (ready < 0 && errno != EINTR) break;
    if (waiting[1].revents != 0 && !read_output()) waiting[1].fd = -1;
    if (waiting[0].revents != 0) break;
    if (!asked_) continue;
    if (end_by == clock::time_point::max()) end_by = clock::now() + ends_within;
    if (!killed && clock::now() >= end_by) {
      killed = true;
      log_warning("worker {} did not end when asked to: killed", name_);
      ::kill(pid_, SIGKILL);
    }
  }
  read_output();
  if (!partial_.empty()) take_output("\n", 1);
  const std::string how = reap();
  if (!asked_) ended_(pid_, how);
}

// False once there is no more to come.
bool worker_process::read_output() {
  std::array<char, 4096> data;
  while (true) {
    const auto count = ::read(output_, data.data(), data.size());
    if (count > 0)
      take_output(data.data(), static_cast<std::size_t>(count));
    else
      return count < 0 && (errno == EAGAIN || errno == EINTR);
  }
}

void worker_process::take_output(const char* data, std::size_t count) {
  for (const char c : std::string_view(data, count)) {
    if (c != '\n' && partial_.size() < line_bytes_max) {
      partial_ += c;
      continue;
    }
    last_line_ = std::exchange(partial_, {});
    if (c != '\n') partial_ += c;
    pass_on(name_, last_line_);
  }
}

std::string worker_process::reap() {
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status))
    return fmt::format("killed by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  return last_line_.empty() ? fmt::format("exit status {}", WEXITSTATUS(status))
                            : fmt::format("exit status {}: {}", WEXITSTATUS(status), last_line_);
}

}  // namespace tandem
