// The device side of serving: runs step plans on one backend, over one model and its variants
// (adapters over it, and whole weights of the same shape). Holds what a sequence needs between
// steps (its block table, its sampler, its variant) by slot. A step is a program of pieces: begin,
// advance until it says no, finish. All rows over the same whole weights are one forward pass,
// whatever their adapters; several whole weights in a step are passes one after the other.
#pragma once

#include "kernels/backend.hpp"
#include "kernels/collective.hpp"
#include "runtime/memory/ledger.hpp"
#include "runtime/model/forward.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/result.hpp"
#include "runtime/serve/step_plan.hpp"

#include <cstdint>
#include <memory>

namespace tandem::serve {

struct variant;  // device.hpp

struct runner_limits {
  int max_sequences = 64;
  int max_batch_tokens = 512;
  int max_logit_rows = 64;  // rows of one step whose logits are wanted
  std::int64_t context_length = 2048;
  std::int64_t kv_blocks = 0;
  kernels::kv_format kv = kernels::kv_format::f16;
};

class step_runner {
 public:
  // Reserves everything in `book`; nothing on the device is allocated afterwards. Of several ranks
  // that hold the model (forward.hpp) each runs the same plans, and the first one samples.
  static result<std::unique_ptr<step_runner>> create(kernels::backend& device, memory::ledger& book,
                                                     std::shared_ptr<const model::weights> model,
                                                     const runner_limits& limits,
                                                     kernels::collective* ranks = nullptr);
  ~step_runner();

  // Checks the plan against the limits and the slots (a plan that names what is not there is
  // refused and changes nothing) and takes it over. One step at a time.
  result<void> begin(step_plan plan);
  // Runs the next piece; false once the step is done.
  bool advance();
  step_result finish();
  bool busy() const;
  // Gives the step in flight up and forgets every slot.
  void reset();

  // From the next step on sequences may start on it. Refuses an id that is taken, and what does not
  // fit the model. At any time: a step in flight keeps what it began with until it is done.
  result<void> add_variant(variant_id id, const variant& what);
  // Plans may not run on it any more; slots that did may still be released. Unknown ids are
  // ignored.
  void remove_variant(variant_id id);

  const model::weights& model() const;
  const model::forward_pass& pass() const;

 private:
  struct state;
  explicit step_runner(std::unique_ptr<state> s);
  std::unique_ptr<state> state_;
};

}  // namespace tandem::serve
