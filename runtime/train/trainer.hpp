// The device side of training: one job's parameters, gradients and optimizer on one device, and the
// orders on them as programs of pieces. No actors, no files but the checkpoint it opens from.
//
// Parameters are float32 and lie in one arena in layout order: for full training the weights
// themselves in the f32 packed format (model::weights of load_format::f32), for LoRA an adapter.
// Gradients and AdamW's m and v are arenas of the same layout. A group of devices has all
// parameters on each, and m, v of one shard each (whole tensors, contiguous in layout order).
//
// The bits do not depend on the group's size: see row_segment in kernels/backend.hpp.
#pragma once

#include "kernels/backend.hpp"
#include "kernels/collective.hpp"
#include "runtime/memory/ledger.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/pause_point.hpp"
#include "runtime/result.hpp"
#include "runtime/train/group_layout.hpp"
#include "runtime/train/order.hpp"

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace tandem::train {

// What a checkpoint writer reads, beside running accumulate orders: parameters, m and v change in
// `update` and `gather` only. Spans are of whole arenas in the device's memory; m and v hold the
// own shard, zero elsewhere not guaranteed. Empty where no one device has them: then `read` does.
struct state_view {
  std::span<const float> parameters;
  std::span<const float> first_moments;   // of the shard: floats [shard_begin, shard_end)
  std::span<const float> second_moments;  // likewise
  std::size_t shard_begin = 0;
  std::size_t shard_end = 0;
};

// Shared between the devices of a group and with the checkpoint writer; keeps every byte it names
// alive. What may be read when is the coordinator's order of things.
class trainer_memory {
 public:
  virtual ~trainer_memory() = default;
  virtual state_view view() const = 0;
  virtual const std::vector<parameter>& layout() const = 0;
  // Numbers of `view` where the host may read them: themselves, or a copy in `room`. Any thread.
  virtual std::span<const float> on_host(std::span<const float> numbers,
                                         std::vector<float>& room) const;

  // For devices that share no memory (group_layout.hpp): makes room in this one's mirrors for such
  // an order of `home`, and forgets what lay there.
  virtual result<void> expect(order_kind kind, int home);
  // Of this device's memory, or of a mirror in it. Refuses what does not lie here. `room` is asked
  // once for as many bytes as come.
  using take_room = kernels::function_ref<std::byte*(std::size_t bytes)>;
  virtual result<void> read(const memory_range& what, take_room room) const;
  virtual result<void> write(const memory_range& what, std::span<const std::byte> bytes);
};

class trainer {
 public:
  // Works the plan out and refuses what does not fit with the numbers and the settings to change
  // (micro_batch, sequence_length, recompute, method, devices.memory_fraction) before taking
  // anything. `base` is what the device serves; LoRA trains over it in place. The calling thread
  // must be the device's. `book` is shared because trainer_memory may outlive the device.
  //
  // `ranks`: where `base` is one rank's part of a model, the others of which open the same job and
  // then do the same; outlives the trainer. Its order is of one device, apart. LoRA has the whole
  // adapter on each rank: next to a base it is small, and every sum over it is then one device's.
  // Full training has a rank's own rows (rank_layout.hpp), and is open once `open_more` says so.
  static result<std::unique_ptr<trainer>> open(kernels::backend& device,
                                               std::shared_ptr<memory::ledger> book,
                                               std::shared_ptr<const model::weights> base,
                                               const open_order& order,
                                               const pause_point& pause = no_pause,
                                               kernels::collective* ranks = nullptr);
  // Of a rank: reads the next piece of what is trained, or brings the embedding together; false
  // once nothing is left. A checkpoint is in the memory before the first call (rank_memory.hpp).
  bool open_more();
  // What `open` would take, without taking it.
  static result<memory_plan> forecast(const kernels::backend& device,
                                      const model::model_source& source, const open_order& order);
  ~trainer();

  const opened& facts() const;
  // All devices of the group in rank order, this one included; null: one whose memory this one
  // does not share. Before the first order of a group of more than one.
  void join(std::vector<std::shared_ptr<trainer_memory>> group);

  // One order at a time; refuses what does not fit the limits it was opened with.
  result<void> begin(order what);
  bool advance();  // the next piece, about a layer's half at most; false once done
  result<outcome> finish();
  bool busy() const;
  void give_up();  // the order in flight; gradients are rubbish until the next round 0

 private:
  struct state;
  explicit trainer(std::unique_ptr<state> s);
  std::unique_ptr<state> state_;
};

}  // namespace tandem::train
