// What people see of leases: every change with the numbers that made it, and the state as it is.
#pragma once

#include "runtime/lease/policy.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tandem::lease {

// Something that happened to a device, a job or the coordinator. The timeline and the event stream
// are made of these.
struct event {
  std::uint64_t sequence = 0;  // grows by one; given by the board
  std::int64_t time_ms = 0;    // Unix milliseconds
  // "move", "refused" (a move that could not be), "device_up", "device_lost", "assigned",
  // "job_opened", "job_left", "policy", "coordinator" (a new one), "node_{joined,drains,left}"
  std::string kind;
  std::string device;  // empty: of none
  std::string job;     // empty: of none
  role from = role::idle;
  role to = role::idle;
  epoch at = 0;
  std::string cause;  // "latency_first", "assigned by hand", "the job opened here", …
  std::string why;    // one sentence with the numbers
  numbers given;
  // Of a move: from the decision to the lease held by the device, and to its first piece of work in
  // the new role. -1: not yet.
  std::int64_t held_after_us = -1;
  std::int64_t first_work_after_us = -1;
};

struct device_report {
  lease held;
  std::optional<role> pin;
  std::optional<role> moving_to;  // a move is under way
  bool resident = false;          // the running job lies in its memory
  std::int64_t since_ms = 0;      // Unix milliseconds of the last change of its role
  std::string why;                // of the last decision
  int running = 0;
  int queued = 0;
  double busy = 0.0;
  std::uint64_t memory_capacity = 0;
  std::uint64_t memory_used = 0;
  std::uint64_t moves = 0;
};

struct job_report {
  std::string job;
  std::int64_t step = 0;
  std::int64_t step_count = 0;
  std::int64_t trained_tokens = 0;  // of this process' life, counted as rounds are done
  double loss = 0.0;                // of the last step
  int working_devices = 0;
};

struct report {
  epoch newest = 0;
  policy_settings policy;
  std::vector<device_report> devices;  // by name
  service_view service;
  std::vector<job_report> jobs;
  std::uint64_t moves = 0;
  std::uint64_t refusals = 0;
};

}  // namespace tandem::lease
