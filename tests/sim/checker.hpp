// What must hold of a simulated run, whatever happened in it.
#pragma once

#include "tests/sim/cluster.hpp"
#include "tests/sim/load.hpp"

namespace tandem::sim {

// Once everything has ended; what does not hold is said to `ground`.
void check_run(const load& asked, const cluster& of, const memory_database& database, ground& on);

}  // namespace tandem::sim
