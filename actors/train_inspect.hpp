// How training's plain structs travel in messages: one `inspect` each. Pointers into a device's
// memory stay in their process: what they would have named is null elsewhere.
#pragma once

#include "runtime/train/order.hpp"

#include <caf/all.hpp>

namespace tandem::train {

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, parameter& x) {
  return f(caf::meta::type_name("parameter"), x.name, x.first_float, x.floats, x.matrix);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, shard& x) {
  return f(caf::meta::type_name("shard"), x.begin, x.end, x.first_tensor, x.last_tensor);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, memory_range& x) {
  return f(caf::meta::type_name("memory_range"), x.rank, x.arena, x.first, x.count);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, group_layout& x) {
  return f(caf::meta::type_name("group_layout"), x.parameters, x.shards, x.embedding_rank,
           x.embedded_rows, x.embedded_columns);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, job_settings& x) {
  return f(caf::meta::type_name("job_settings"), x.method, x.rank, x.alpha, x.targets, x.epochs,
           x.batch_size, x.slots, x.micro_batch, x.sequence_length, x.packing, x.shuffle, x.seed,
           x.long_examples, x.learning_rate, x.learning_rate_multiplier, x.beta1, x.beta2, x.eps,
           x.weight_decay, x.clip_norm, x.schedule, x.warmup_steps, x.recompute,
           x.publish_every_steps, x.checkpoint_every_steps, x.checkpoints_kept, x.serve_format);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, open_order& x) {
  return f(caf::meta::type_name("open_order"), x.job, x.model_path, x.settings, x.device_count,
           x.device_rank, x.checkpoint, x.apart, x.keeps);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, memory_plan& x) {
  return f(caf::meta::type_name("memory_plan"), x.parameters, x.gradients, x.optimizer,
           x.activations, x.workspace, x.serving_copies, x.guests, x.copies);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, opened& x) {
  return f(caf::meta::type_name("opened"), x.memory, x.trainable_parameters, x.step, x.layout,
           x.keeps);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, slot_rows& x) {
  return f(caf::meta::type_name("slot_rows"), x.ids, x.targets, x.example_rows);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, order& x) {
  return f(caf::meta::type_name("order"), x.kind, x.job, x.step, x.round, x.home, x.slots, x.scale,
           x.learning_rate, x.gradient_scale, x.version);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, slot_loss& x) {
  return f(caf::meta::type_name("slot_loss"), x.loss_sum, x.counted, x.correct);
}
// Versions are published in their own process only (group_layout.hpp).
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, outcome& x) {
  return f(caf::meta::type_name("outcome"), x.kind, x.step, x.losses, x.home, x.squares,
           x.device_ns);
}

}  // namespace tandem::train
