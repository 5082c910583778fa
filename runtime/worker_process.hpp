// Another process of this program, started and watched: its lines go to our log, its end is noticed
// at once with how it ended, and it is reaped. It leads a session of its own, so that a Ctrl-C at
// the terminal reaches us alone; its input stays open as long as we live, and ends with us.
#pragma once

#include "runtime/result.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <sys/types.h>

namespace tandem {

struct worker_command {
  std::string name;                    // for the log
  std::vector<std::string> arguments;  // everybody on the machine can read these
  std::string input;                   // what it reads first; at most a pipe's 64 KiB
};

class worker_process {
 public:
  // `ended` is called once, on the watcher's thread, unless we end the worker ourselves: with
  // "killed by signal 9 (Killed)" or "exit status 3: its last line".
  static result<std::unique_ptr<worker_process>> start(
      const worker_command& command, std::function<void(pid_t, std::string)> ended);
  // Ends it: by the end of its input, and by force when that takes longer than two seconds.
  ~worker_process();
  worker_process(const worker_process&) = delete;
  worker_process& operator=(const worker_process&) = delete;

  pid_t pid() const { return pid_; }
  // The end of its input: it ends soon. Several end at the same time so.
  void ask_to_end();

 private:
  worker_process() = default;
  void watch();
  void take_output(const char* data, std::size_t count);
  bool read_output();
  std::string reap();

  std::string name_;
  std::function<void(pid_t, std::string)> ended_;
  pid_t pid_ = -1;
  int alive_ = -1;   // a pidfd: readable once it has ended
  int input_ = -1;   // ours to write
  int output_ = -1;  // ours to read
  std::atomic<bool> asked_{false};
  std::string partial_;
  std::string last_line_;
  std::thread watcher_;
};

}  // namespace tandem
