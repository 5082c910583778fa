// The lease board as Prometheus series.
#pragma once

#include "actors/lease_board.hpp"

#include <string>

namespace tandem::gateway {

std::string lease_metrics(const actors::lease_board& board);

}  // namespace tandem::gateway
