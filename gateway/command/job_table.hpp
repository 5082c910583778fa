// How `jobs`, `job` and `status` show jobs.
#pragma once

#include "gateway/command/jobs.hpp"

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

namespace tandem::gateway::command {

// Unix seconds in UTC, "2026-11-25 20:54"; empty for 0.
std::string utc_time(std::int64_t seconds);

// A row a job.
void print_jobs(std::ostream& out, const std::vector<job_view>& jobs);
// All that is known of one.
void print_job(std::ostream& out, const job_view& job);

}  // namespace tandem::gateway::command
