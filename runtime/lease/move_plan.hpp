// Memory by contract: what a change of role means for a device's memory, decided before anything
// moves. Weights that serving and training share are counted once.
#pragma once

#include "runtime/lease/lease_book.hpp"
#include "runtime/memory/ledger.hpp"

#include <array>
#include <cstdint>
#include <string>

namespace tandem::lease {

using bytes_by_owner = std::array<std::uint64_t, memory::owner_count>;

struct move_order {
  std::string device;
  role from = role::idle;
  role to = role::idle;
  std::uint64_t capacity = 0;
  bytes_by_owner used{};        // now
  std::string job;              // that trains there in the new role; empty: none
  std::uint64_t job_bytes = 0;  // what it must bring; 0: it lies there already
  // Of job_bytes: weights that serving has in this memory already and the job only reads.
  std::uint64_t shared_bytes = 0;
  bytes_by_owner droppable{};  // what nobody would miss in the new role
};

struct move_plan {
  std::uint64_t stays = 0;
  std::uint64_t dropped = 0;
  std::uint64_t comes = 0;
  std::uint64_t peak = 0;  // the most that lies there at any moment of the move
};

// What is dropped goes before what comes, so the peak is the larger of before and after. Refused
// (no_memory) with all the numbers when it would pass the capacity.
result<move_plan> plan_move(const move_order& order);

}  // namespace tandem::lease
