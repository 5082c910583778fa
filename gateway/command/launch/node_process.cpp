#include "gateway/command/launch/node_process.hpp"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tandem::gateway::command {
namespace {

constexpr std::size_t line_bytes_max = 4096;
constexpr std::size_t bytes_at_a_time = 256 << 10;

std::string whole(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::optional<process_identity> identity_of(pid_t pid) {
  // "PID (NAME) STATE PPID …": the name may hold anything, the 22nd field is its start.
  const std::string stat = whole(fmt::format("/proc/{}/stat", pid));
  const auto name_end = stat.rfind(") ");
  if (name_end == std::string::npos || stat[name_end + 2] == 'Z') return std::nullopt;
  std::string_view rest = std::string_view(stat).substr(name_end + 2);
  for (int field = 3; field < 22; ++field) {
    const auto space = rest.find(' ');
    if (space == std::string_view::npos) return std::nullopt;
    rest.remove_prefix(space + 1);
  }
  process_identity who{pid, 0, whole("/proc/sys/kernel/random/boot_id")};
  while (!who.boot.empty() && who.boot.back() == '\n') who.boot.pop_back();
  for (const char c : rest.substr(0, rest.find(' ')))
    who.started = who.started * 10 + static_cast<std::uint64_t>(c - '0');
  return who;
}

int open_pidfd(pid_t pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }

void shut(int file) {
  if (file >= 0) ::close(file);
}

error cannot_start(const std::vector<std::string>& command, std::string_view what, int why) {
  return {errc::io,
          fmt::format("{} cannot be started: {}{}", command.front(), what, std::strerror(why)),
          {}};
}

// Its three streams, no blocked signals, a session of its own.
int spawn(pid_t& pid, std::vector<std::string> words, int input, int output) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, input, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, output, STDERR_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  sigset_t usual;
  sigemptyset(&usual);
  for (const int signal : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGABRT}) sigaddset(&usual, signal);
  posix_spawnattr_setsigdefault(&attributes, &usual);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const std::string program = words.front() == "tandem" ? "/proc/self/exe" : words.front();
  const int fault =
      ::posix_spawnp(&pid, program.c_str(), &files, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  return fault;
}

}  // namespace

result<std::unique_ptr<node_process>> node_process::start(const std::vector<std::string>& command,
                                                          const std::filesystem::path& input,
                                                          const std::filesystem::path& log) {
  std::error_code none_before;
  std::filesystem::rename(log, log.string() + ".1", none_before);
  const std::string from = input.empty() ? "/dev/null" : input.string();
  const int in = ::open(from.c_str(), O_RDONLY | O_CLOEXEC);
  if (in < 0) return cannot_start(command, from + ": ", errno);
  const int out = ::open(log.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
  if (out < 0) {
    const int fault = errno;
    shut(in);
    return cannot_start(command, log.string() + ": ", fault);
  }
  auto made = std::unique_ptr<node_process>(new node_process);
  const int fault = spawn(made->identity_.pid, command, in, out);
  shut(in);
  shut(out);
  if (fault != 0) return cannot_start(command, "", fault);
  made->is_ours_ = true;
  const auto pid = made->identity_.pid;
  made->alive_ = open_pidfd(pid);
  made->log_ = ::open(log.c_str(), O_RDONLY | O_CLOEXEC);
  if (made->alive_ < 0 || made->log_ < 0) {
    const int why = errno;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return cannot_start(command, "its log or its pidfd: ", why);
  }
  // It may have ended already: then nobody will look for it.
  if (auto who = identity_of(pid)) made->identity_ = *std::move(who);
  return made;
}

std::unique_ptr<node_process> node_process::find(const process_identity& who,
                                                 const std::filesystem::path& log) {
  if (who.pid <= 0) return nullptr;
  auto made = std::unique_ptr<node_process>(new node_process);
  made->alive_ = open_pidfd(who.pid);  // before the look at who it is
  if (made->alive_ < 0 || identity_of(who.pid) != who) return nullptr;
  made->identity_ = who;
  made->log_ = ::open(log.c_str(), O_RDONLY | O_CLOEXEC);
  return made;
}

node_process::~node_process() {
  shut(alive_);
  shut(log_);
}

std::vector<std::string> node_process::take_lines() {
  std::vector<std::string> lines;
  std::array<char, 16384> data;
  for (std::size_t taken = 0; log_ >= 0 && taken < bytes_at_a_time;) {
    const auto count = ::pread(log_, data.data(), data.size(), read_to_);
    if (count <= 0) break;
    read_to_ += count;
    taken += static_cast<std::size_t>(count);
    for (const char c : std::string_view(data.data(), static_cast<std::size_t>(count))) {
      if (c == '\n')
        lines.push_back(std::exchange(partial_, {}));
      else if (partial_.size() < line_bytes_max && c != '\r')
        partial_ += c;
    }
  }
  return lines;
}

std::optional<process_end> node_process::take_end() {
  pollfd waiting{alive_, POLLIN, 0};
  if (::poll(&waiting, 1, 0) <= 0) return std::nullopt;
  if (!is_ours_) return process_end{-1, "its process has ended"};
  int status = 0;
  while (::waitpid(identity_.pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status))
    return process_end{
        -1, fmt::format("killed by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)))};
  return process_end{WEXITSTATUS(status), fmt::format("exit status {}", WEXITSTATUS(status))};
}

// By the pidfd, so that no other process is hit.
void node_process::signal(int number) const {
  ::syscall(SYS_pidfd_send_signal, alive_, number, nullptr, 0);
}

}  // namespace tandem::gateway::command
