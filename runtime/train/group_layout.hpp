// How a job lies on the devices of a group, and what must be moved where devices do not share
// memory.
//
// A member of a group that shares no memory with a device is a mirror there: the part of its memory
// that the order in hand is about, laid out in one guest arena that all mirrors share, since a
// device has one order at a time. `needs` says what is to be brought to the device that does an
// order before it begins, `yields` what is to be taken home once it is done; both are pure, moving
// is somebody else's (actors/courier.hpp). Devices never wait for that.
//
// Any device may do any order still, norm and update too: a home that serves holds nobody up. An
// order done elsewhere works on the mirror alone, so that dropping it costs nothing at home; how
// far home itself had come is brought along. What is being taken home is not dropped any more:
// home's memory is of one step. The exception is publish: serving copies are of a device's own
// memory, so such a group publishes from its checkpoints.
//
// What may be read and written when is the order of phases, as it is for shared memory: gradients
// rest while they are reduced, parameters and moments until the next update.
//
// Each rank's shard has a copy at another rank, its buddy: parameters and moments of the step that
// was done last, brought there while the next one accumulates. So a member may die with all it has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tandem::train {

enum class order_kind : std::uint8_t;

// One trainable tensor by its Hugging Face name, and where its numbers lie in the arenas.
struct parameter {
  std::string name;
  std::size_t first_float = 0;  // index into the arena as floats
  std::size_t floats = 0;       // padding included
  bool matrix = false;          // weight decay applies
  bool operator==(const parameter&) const = default;
};

// Floats [begin, end) of the arena, which are tensors [first_tensor, last_tensor) of the layout.
struct shard {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t first_tensor = 0;
  std::size_t last_tensor = 0;
  std::size_t floats() const { return end - begin; }
  bool operator==(const shard&) const = default;
};

// Whole tensors, contiguous, as even as whole tensors allow. Shards may be empty.
std::vector<shard> shards_of(const std::vector<parameter>& layout, int count);

// What a rank's memory holds besides activations.
enum class arena_kind : std::uint8_t {
  parameters,      // float32, all
  gradients,       // float32, all; of the own slots
  summed,          // float32, own shard; of all slots
  first_moments,   // float32, own shard
  second_moments,  // float32, own shard
  embedded_ids,    // int32; see reduce_group.hpp. As many as the round had
  embedded_rows,   // float32; model_size for each of embedded_ids
  progress,        // one order_progress
  // The copy of another rank's shard that lies here, float32.
  kept_parameters,
  kept_first_moments,
  kept_second_moments
};

// Elements [first, first + count) of one arena of one rank; `first` counts from the arena's place
// in the layout. Of an arena that grows with its round (embedded_ids, embedded_rows): as many of
// them as there are. Its ids are never cut apart: they say how many rows follow.
struct memory_range {
  int rank = 0;
  arena_kind arena = arena_kind::parameters;
  std::size_t first = 0;
  std::size_t count = 0;
  bool operator==(const memory_range&) const = default;
};
std::size_t element_bytes(arena_kind arena);

struct group_layout {
  std::vector<parameter> parameters;  // they tile the arena
  std::vector<shard> shards;          // by rank
  // Of a group in full training.
  int embedding_rank = -1;        // whose shard has the embedding; -1: it is not trained
  std::size_t embedded_rows = 0;  // of a home's round at most
  std::size_t embedded_columns = 0;

  std::size_t floats() const { return shards.empty() ? 0 : shards.back().end; }
  int ranks() const { return static_cast<int>(shards.size()); }
  bool operator==(const group_layout&) const = default;
};

// `shares[rank]`: whether the device at rank `by` reads and writes that rank's memory itself.
// What must lie there before it begins such an order of `home`:
std::vector<memory_range> needs(const group_layout& layout, order_kind kind, int home, int by,
                                const std::vector<bool>& shares);
// and what of its mirror of `home` must be taken there once the order is done.
std::vector<memory_range> yields(const group_layout& layout, order_kind kind, int home, int by,
                                 const std::vector<bool>& shares);

// Floats of the guest arena at `rank`: every order's mirrors have room.
std::size_t guest_floats(const group_layout& layout, int rank);

// The buddy of each rank, where its shard has a copy: one a rank, itself nobody's own; on another
// host wherever no host has more than half of the ranks. `hosts`: where they are, by rank. Of one
// rank: -1.
std::vector<int> buddies_of(const std::vector<std::string>& hosts);
// What a copy of this rank's shard is made of, there.
std::vector<memory_range> copied_ranges(const group_layout& layout, int rank);
// Where a part of such a range lies at the rank that keeps the copy; `has_copy`: of such an arena.
bool has_copy(arena_kind arena);
memory_range kept_at(memory_range what, int buddy);

// The same elements in ranges of at most so many bytes.
std::vector<memory_range> cut(const std::vector<memory_range>& ranges, std::size_t bytes_max);

}  // namespace tandem::train
