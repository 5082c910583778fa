// `tandem bench`: which things can be measured.
#include "gateway/command/bench.hpp"

#include "gateway/command/commands.hpp"

namespace tandem::gateway::command {

void add_bench(CLI::App& app, invocation& call) {
  CLI::App* bench = add_command(app, "bench", "Measure this machine, or a running server",
                                "tandem bench serve --streams 16");
  bench->require_subcommand(1);
  add_bench_serve(*bench, call);
  add_bench_kernels(*bench, call);
  add_bench_train(*bench, call);
  add_bench_switch(*bench, call);
}

}  // namespace tandem::gateway::command
