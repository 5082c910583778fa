// Another program of ours, run beside a test: it is told what to do by lines on its input and says
// what happened by lines on its output. Waiting always has a deadline and never sleeps.
#pragma once

#include "kernels/ensure.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::test {

class child_process {
 public:
  using clock = std::chrono::steady_clock;

  explicit child_process(std::vector<std::string> command) {
    int in[2];
    int out[2];
    ensure(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0, "pipes to a child");
    std::vector<char*> arguments;
    for (auto& one : command) arguments.push_back(one.data());
    arguments.push_back(nullptr);
    pid_ = fork();
    ensure(pid_ >= 0, "fork");
    if (pid_ == 0) {
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      execv(arguments[0], arguments.data());
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    in_ = in[1];
    out_ = out[0];
  }
  ~child_process() {
    kill_now();
    if (in_ >= 0) close(in_);
    close(out_);
  }
  child_process(const child_process&) = delete;
  child_process& operator=(const child_process&) = delete;

  pid_t pid() const { return pid_; }

  void tell(const std::string& line) {
    const std::string whole = line + "\n";
    ensure(write(in_, whole.data(), whole.size()) == static_cast<ssize_t>(whole.size()),
           "a line to a child");
  }
  void close_input() {
    close(in_);
    in_ = -1;
  }
  // The rest of the next line that begins with `start`; lines before it are passed over. None: it
  // did not come within the time, or the child ended.
  std::optional<std::string> line(const std::string& start,
                                  std::chrono::milliseconds within = std::chrono::seconds(20)) {
    const auto until = clock::now() + within;
    for (;;) {
      while (!lines_.empty()) {
        const std::string next = lines_.front();
        lines_.pop_front();
        if (next.rfind(start, 0) == 0) return next.substr(start.size());
      }
      if (!read_some(until)) return std::nullopt;
    }
  }
  void signal(int number) { kill(pid_, number); }
  void kill_now() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  // Its exit code; -1 when a signal ended it.
  int wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  bool read_some(clock::time_point until) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - clock::now()).count();
    pollfd waiting{out_, POLLIN, 0};
    if (left <= 0 || poll(&waiting, 1, static_cast<int>(left)) <= 0) return false;
    char data[4096];
    const auto count = read(out_, data, sizeof data);
    if (count <= 0) return false;
    for (const char c : std::string_view(data, static_cast<std::size_t>(count))) {
      if (c == '\n')
        lines_.push_back(std::exchange(partial_, {}));
      else
        partial_ += c;
    }
    return true;
  }

  pid_t pid_ = -1;
  int in_ = -1;
  int out_ = -1;
  std::string partial_;
  std::deque<std::string> lines_;
};

}  // namespace tandem::test
