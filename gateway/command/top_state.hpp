// What `tandem top` shows, out of what the admin routes say. No clock, no connection: looks go in,
// a state comes out.
#pragma once

#include "runtime/lease/lease_book.hpp"
#include "runtime/text/value.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tandem::gateway::command {

// A device was in this role from … until, in Unix milliseconds. No role: it was not there.
struct top_span {
  std::optional<lease::role> role;
  std::int64_t from_ms = 0;
  std::int64_t until_ms = 0;
  bool operator==(const top_span&) const = default;
};

struct top_device {
  std::string name;
  lease::role role = lease::role::idle;
  std::optional<lease::role> moving_to;
  bool pinned = false;
  std::string held_by;
  double busy = 0.0;
  std::int64_t running = 0;
  std::int64_t queued = 0;
  double memory = 0.0;          // the share in use
  std::vector<top_span> spans;  // newest first, back to the window's beginning
};

struct top_job {
  std::string id;
  std::int64_t step = 0;
  std::int64_t step_count = 0;
  std::int64_t trained_tokens = 0;
  double loss = 0.0;
  std::int64_t working_devices = 0;
};

struct top_state {
  std::string address;
  std::string trouble;  // why the newest look failed; empty: it did not
  std::string policy;
  std::int64_t now_ms = 0;
  std::int64_t window_ms = 0;
  double ttft_ms = 0.0;
  double ttft_target_ms = 0.0;
  double itl_ms = 0.0;
  double itl_target_ms = 0.0;
  double waiting_ms = 0.0;
  std::optional<double> served_per_second;  // tokens; nothing: not known yet
  std::optional<double> trained_per_second;
  std::int64_t moves = 0;
  std::int64_t refusals = 0;
  std::vector<top_device> devices;
  std::vector<top_job> jobs;
};

// Folds look after look into the state: keeps the changes of role of the last window, and the
// counts that rates are made of.
class top_memory {
 public:
  explicit top_memory(std::int64_t window_ms) : window_ms_(window_ms) {}

  // The answers of /admin/leases, /admin/leases/history?after=newest() and /admin/cluster (may be
  // null), as they were `seconds` into the run.
  top_state look(const text::value& leases, const text::value& history, const text::value& cluster,
                 double seconds);
  // The sequence number up to which history is known.
  std::int64_t newest() const { return newest_; }

 private:
  struct change {
    std::string device;
    std::int64_t time_ms = 0;
    std::optional<lease::role> from;
  };
  struct counted {
    double seconds = 0.0;
    std::optional<std::int64_t> served;
    std::optional<std::int64_t> trained;
  };

  void remember(const text::value& history, std::int64_t now_ms);
  std::vector<top_span> spans_of(const top_device& device, std::int64_t since_ms,
                                 std::int64_t now_ms) const;

  const std::int64_t window_ms_;
  std::int64_t newest_ = 0;
  std::int64_t moves_ = 0;
  std::vector<change> changes_;  // newest first
  std::optional<counted> before_;
};

}  // namespace tandem::gateway::command
