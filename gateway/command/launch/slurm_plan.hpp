// A cluster inside a Slurm allocation, a node each, started by srun; and the script that asks for
// the allocation.
#pragma once

#include "gateway/command/launch/plan.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace tandem::gateway::command {

struct slurm_allocation {
  std::string job;                 // $SLURM_JOB_ID
  std::vector<std::string> hosts;  // as Slurm names them; the first has the head
  std::string listen;              // of the head, as the others reach it
};

// `program` lies at the same path on every host.
launch_plan slurm_plan(const slurm_allocation& where, const std::string& program,
                       const launch_settings& given);

// NodeAddr in what `scontrol --oneliner show node` says; empty: there is none.
std::string slurm_address_of(std::string_view about_node);

struct slurm_request {
  int nodes = 1;
  words_list options;  // of sbatch, as they were given
  words_list command;  // what the job runs
  std::string home;    // $TANDEM_HOME
  std::string output;  // the file with its lines
  int drain_timeout_ms = 0;
};
std::string slurm_script(const slurm_request& wanted);

}  // namespace tandem::gateway::command
