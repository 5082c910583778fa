// What a GPU actor drives: one device with its memory, its model and its step in flight. Tests and
// simulations bring fakes.
#pragma once

#include "runtime/device_spec.hpp"
#include "runtime/memory/ledger.hpp"
#include "runtime/model/adapter.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/pause_point.hpp"
#include "runtime/result.hpp"
#include "runtime/serve/step_plan.hpp"
#include "runtime/train/order.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tandem::serve {

struct load_order {
  std::string path;
  std::string format = "native";
  std::string kv_format = "auto";   // f16 | f32; auto: f32 for f32 weights, else f16
  std::int64_t context_length = 0;  // 0: the model's own, as far as KV memory reaches
  std::int64_t kv_bytes = 0;        // 0: see memory_plan.hpp
  int max_sequences = 64;
  int max_batch_tokens = 512;
  bool operator==(const load_order&) const = default;
};

struct device_facts {
  std::string name;
  std::string backend;
  int threads = 0;
  bool gpu = false;
  std::uint64_t memory_capacity = 0;
  std::array<std::uint64_t, memory::owner_count> memory_by_owner{};
  bool operator==(const device_facts&) const = default;
};

struct loaded_model {
  std::uint64_t weights_version = 0;
  std::string precision;
  std::string kv_format;
  std::int64_t parameter_count = 0;
  std::int64_t context_length = 0;
  std::int64_t kv_blocks = 0;
  int max_logit_rows = 0;
  device_facts facts;  // with the model in its memory
  // For other devices of this process; null: nobody else can read them.
  std::shared_ptr<const memory::kv_memory> kv;
  // Steps leave the host's cores alone, so that the next one may be planned and sent while one
  // runs. Where they take the cores themselves that would only be in their way.
  bool steps_ahead = false;
  bool operator==(const loaded_model&) const = default;
};

// A weights version beside the base: an adapter over it, or whole weights of the same shape.
struct variant {
  std::uint64_t version = 0;
  std::shared_ptr<const model::adapter> adapter;
  std::shared_ptr<const model::weights> weights;
  std::vector<variant> ranks = {};  // of a group of devices: each one's part
};

class device {
 public:
  virtual ~device() = default;

  // The calling thread is the device's own from now on; every call below comes from it.
  virtual void attach_calling_thread() = 0;
  virtual device_facts facts() const = 0;

  virtual result<loaded_model> load(const load_order& order) = 0;
  virtual void unload() = 0;

  // One step, as a program of pieces (step_runner.hpp).
  virtual result<void> begin(step_plan plan) = 0;
  virtual bool advance() = 0;
  // What the piece that advance() or advance_training() just did still takes: nothing for a device
  // that is done when the call returns; a simulated one is looked at again after so long.
  virtual std::chrono::nanoseconds piece_time() const { return {}; }
  virtual step_result finish() = 0;
  // Gives the step in flight up and forgets every sequence.
  virtual void reset() = 0;

  // --- versions, between two pieces --------------------------------------------------------------
  // A step in flight keeps what it began with; from the next one on sequences may start on this
  // version. An adapter that lies in another device's
  // memory is copied into this one's; weights must be this device's own. Milliseconds at most.
  virtual result<device_facts> add_variant(variant_id id, const variant& what) = 0;
  // No plan names it any more; a step in flight may still run on it.
  virtual void remove_variant(variant_id id) = 0;
  // A published version out of a training checkpoint's folder, into this device's memory.
  // Takes long and pauses; whatever else the device is asked for may happen meanwhile.
  virtual result<variant> load_variant(const std::string& checkpoint, std::uint64_t version,
                                       const pause_point& pause = no_pause) = 0;

  // --- training: orders as programs of pieces that interleave with steps -------------------------
  // Takes long and pauses, likewise; until it returns the job is not open.
  virtual result<train::opened> open_training(const train::open_order& order,
                                              const pause_point& pause = no_pause) = 0;
  virtual void join_training(const std::string& job,
                             std::vector<std::shared_ptr<train::trainer_memory>> group) = 0;
  virtual result<void> begin_training(train::order what) = 0;
  virtual bool advance_training() = 0;  // false once the order is done
  virtual result<train::outcome> finish_training() = 0;
  // Gives the order in flight up; the job stays open.
  virtual void drop_training() = 0;
  // Gives an order in flight up and frees everything but what was published. Unknown jobs: nothing.
  virtual void close_training(const std::string& job) = 0;
};

// The cores or the GPU that it names, or a group of these (tensor_device.hpp).
std::unique_ptr<device> make_device(const device_spec& spec);
// Likewise; of cores, other processes of this machine can read its keys and values.
std::unique_ptr<device> make_lending_device(const device_spec& spec);

}  // namespace tandem::serve
