// What a launched cluster keeps under $TANDEM_HOME/launch, so that it outlives its launcher: the
// plan and who runs (cluster.json, written by the launcher alone), how many nodes are wanted
// (written by whoever scales), a log for each node, and the lock that says whether a launcher is
// there.
#pragma once

#include "gateway/command/launch/node_process.hpp"
#include "gateway/command/launch/plan.hpp"
#include "runtime/result.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::gateway::command {

struct launch_record {
  struct node {
    process_identity process;
    std::string state = "absent";
    std::string elsewhere;  // its process on another machine
    std::string why;        // it is down
    bool operator==(const node&) const = default;
  };
  launch_plan plan;
  std::string order;     // the newest that the launcher has taken up
  bool settled = false;  // and carried out: all are up that can be
  std::string cluster_address;
  std::string http_address;
  std::vector<node> nodes;  // as many as the plan has
  bool operator==(const launch_record&) const = default;
};

// How many nodes are wanted, and which order said so.
struct launch_wish {
  int count = 0;
  std::string order;
  bool operator==(const launch_wish&) const = default;
};

std::string to_json(const launch_record& record);
result<launch_record> record_from(std::string_view json);

class launch_files {
 public:
  explicit launch_files(const std::filesystem::path& home) : folder_(home / "launch") {}
  ~launch_files();
  launch_files(const launch_files&) = delete;
  launch_files& operator=(const launch_files&) = delete;

  const std::filesystem::path& folder() const { return folder_; }
  std::filesystem::path log_of(const std::string& node) const { return folder_ / (node + ".log"); }

  // Makes this process the launcher, until this goes away. Refused (conflict): another one is.
  result<void> lock();
  void unlock();
  // Is another process the launcher?
  bool has_launcher() const;

  // None: nothing was launched from this home.
  result<std::optional<launch_record>> read() const;
  result<void> write(const launch_record& record) const;
  // The processes of the record that still run.
  std::vector<std::string> running(const launch_record& record) const;

  std::optional<launch_wish> wish() const;
  // A new order; what it is called.
  result<std::string> want(int count) const;

 private:
  result<void> make_folder() const;
  result<void> replace(const std::string& name, std::string_view contents) const;

  std::filesystem::path folder_;
  int lock_ = -1;
};

// A file with a new secret at `path`, for its owner alone, unless there is one.
result<void> make_secret(const std::filesystem::path& path);

}  // namespace tandem::gateway::command
