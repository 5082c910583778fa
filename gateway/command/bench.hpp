// The parts of `tandem bench`.
#pragma once

#include "gateway/command/invocation.hpp"

namespace tandem::gateway::command {

void add_bench_serve(CLI::App& bench, invocation& call);
void add_bench_kernels(CLI::App& bench, invocation& call);
void add_bench_train(CLI::App& bench, invocation& call);
void add_bench_switch(CLI::App& bench, invocation& call);

}  // namespace tandem::gateway::command
