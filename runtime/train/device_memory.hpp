// One device's arenas of a training job, and the group's: what the coordinator's orders work on.
// Whatever a peer reads or writes in this device's stead lies here, and lives as long as somebody
// holds it. Of a member that shares no memory with us: its mirror, see group_layout.hpp.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/memory/arena.hpp"
#include "runtime/memory/ledger.hpp"
#include "runtime/model/adapter.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/train/serving_copy.hpp"
#include "runtime/train/trainer.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace tandem::train {

inline std::span<float> floats_of(const memory::arena& arena) {
  return {reinterpret_cast<float*>(arena.bytes().data()), arena.bytes().size() / sizeof(float)};
}

// Floats by their index in the whole arena, of which this may be a part only.
struct float_range {
  std::size_t first = 0;
  std::span<float> floats;

  bool holds(std::size_t begin, std::size_t count) const {
    return begin >= first && count <= floats.size() && begin - first <= floats.size() - count;
  }
  std::span<float> part(std::size_t begin, std::size_t count) const {
    ensure(holds(begin, count), "floats that lie here");
    return floats.subspan(begin - first, count);
  }
};

// How far an order that changes a home's memory piece by piece has come: whoever begins it again,
// after it was dropped elsewhere, goes on from there.
struct order_progress {
  order_kind kind = order_kind::norm;
  std::int64_t step = 0;
  int round = 0;
  std::size_t pieces_done = 0;
};

class device_memory final : public trainer_memory {
 public:
  state_view view() const override {
    return {parameters, first_moments.floats, second_moments.floats, own.begin, own.end};
  }
  const std::vector<parameter>& layout() const override { return group.parameters; }
  // What update reads: of a group the sum over its devices, of one device its own.
  const float_range& shard_gradient() const { return devices > 1 ? summed : gradients; }

  result<void> expect(order_kind kind, int home) override;
  std::span<const float> on_host(std::span<const float> numbers,
                                 std::vector<float>& room) const override;
  result<void> read(const memory_range& what, take_room room) const override;
  result<void> write(const memory_range& what, std::span<const std::byte> bytes) override;

  // Mirrors of everybody else, nothing laid out in them yet.
  result<void> take_guests();
  // Room for the copy of this rank's shard.
  result<void> take_copy(int of_rank);

  std::shared_ptr<memory::ledger> book;           // before the arenas booked there
  std::shared_ptr<const model::weights> masters;  // full training
  std::shared_ptr<model::adapter> adapter;        // LoRA
  std::span<float> parameters;                    // of one of the two; of a mirror empty
  group_layout group;
  int devices = 1;
  int rank = 0;
  shard own;

  float_range gradients;         // this device's slots, all parameters
  float_range summed;            // of a group: all devices' rounds so far, own shard
  float_range first_moments;     // own shard
  float_range second_moments;    // own shard
  float_range shard_parameters;  // own shard
  memory::arena activations;
  memory::arena workspace;
  memory::arena table;  // of a rank in full training: the whole embedding, as of the last step

  // Of a group in full training: what reached the embedding in this home's rows of the round.
  std::span<float> embedded_rows;
  std::vector<token_id> embedded_ids;
  kernels::rows_in embedded_gradient() const {
    return {embedded_rows.data(), std::ssize(embedded_ids),
            static_cast<std::int64_t>(group.embedded_columns)};
  }

  std::unique_ptr<serving_copy> copies;  // full training
  order_progress progress;

  std::vector<memory::arena> held;  // what the ranges above lie in
  memory::arena guests;
  std::vector<std::shared_ptr<device_memory>> mirrors;  // by rank; of ourselves none
  float_range kept_parameters;                          // of the shard whose copy lies here
  float_range kept_first_moments;
  float_range kept_second_moments;

 private:
  const device_memory* member(int at) const;
  float_range range_of(arena_kind arena) const;
  void forget();  // a mirror's ranges
};

}  // namespace tandem::train
