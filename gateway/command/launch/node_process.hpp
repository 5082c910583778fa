// A process that outlives us: it leads a session of its own and writes into a file, from which its
// lines are read. A later launcher takes it over by its identity.
#pragma once

#include "gateway/command/launch/book.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace tandem::gateway::command {

// Which process is meant, though its number be given to another one later.
struct process_identity {
  pid_t pid = 0;
  std::uint64_t started = 0;  // clock ticks since the machine's start
  std::string boot;           // which start that was
  bool operator==(const process_identity&) const = default;
};

class node_process {
 public:
  // `command`'s first word "tandem" means this program. `input` empty: nothing to read. What the
  // file held before is kept beside it as FILE.1.
  static result<std::unique_ptr<node_process>> start(const std::vector<std::string>& command,
                                                     const std::filesystem::path& input,
                                                     const std::filesystem::path& log);
  // None: that process is gone.
  static std::unique_ptr<node_process> find(const process_identity& who,
                                            const std::filesystem::path& log);
  ~node_process();  // lets it run on
  node_process(const node_process&) = delete;
  node_process& operator=(const node_process&) = delete;

  const process_identity& identity() const { return identity_; }
  // Readable, by poll, once it has ended.
  int end_file() const { return alive_; }
  // The lines it has written since the last call; a limited number at a time.
  std::vector<std::string> take_lines();
  // How it ended; none while it runs. Its last lines are there then.
  std::optional<process_end> take_end();
  void signal(int number) const;

 private:
  node_process() = default;

  process_identity identity_;
  bool is_ours_ = false;  // started by this process, which reaps it
  int alive_ = -1;        // a pidfd
  int log_ = -1;
  std::int64_t read_to_ = 0;
  std::string partial_;
};

}  // namespace tandem::gateway::command
