#include "runtime/train/job_plan.hpp"

#include "runtime/model/families.hpp"
#include "runtime/train/lora_start.hpp"
#include "runtime/train/named_tensors.hpp"
#include "runtime/train/reduce_group.hpp"
#include "runtime/train/serving_copy.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>

namespace tandem::train {

namespace {

error bad(std::string detail, std::string param) {
  return {errc::bad_request, std::move(detail), std::move(param)};
}

bool power_of_two(int n) { return n > 0 && std::has_single_bit(static_cast<unsigned>(n)); }

result<void> check(const open_order& order, const model::model_config& config) {
  const auto& s = order.settings;
  if (auto why = model::untrainable(config); !why.empty()) return bad(std::move(why), "model");
  if (!power_of_two(s.slots))
    return bad(fmt::format("slots is {}, it must be a power of two", s.slots), "slots");
  if (!power_of_two(order.device_count) || order.device_count > s.slots)
    return bad(fmt::format("{} devices cannot share {} slots: a power of two, at most slots",
                           order.device_count, s.slots),
               "slots");
  if (order.device_rank < 0 || order.device_rank >= order.device_count)
    return bad(fmt::format("device {} of a group of {}", order.device_rank, order.device_count),
               "");
  if (order.keeps < -1 || order.keeps >= order.device_count || order.keeps == order.device_rank ||
      (order.keeps >= 0 && !order.apart))
    return bad(fmt::format("device {} of {} is to keep a copy of rank {}", order.device_rank,
                           order.device_count, order.keeps),
               "");
  if (s.micro_batch < 1)
    return bad(fmt::format("micro_batch is {}, it must be at least 1", s.micro_batch),
               "micro_batch");
  if (s.sequence_length < 2 || s.sequence_length > config.context_length)
    return bad(fmt::format("sequence_length is {}, it must lie between 2 and the model's {}",
                           s.sequence_length, config.context_length),
               "sequence_length");
  if (s.sequence_length >
      std::numeric_limits<std::int32_t>::max() / (s.slots * std::int64_t{s.micro_batch}))
    return bad(fmt::format("{} slots of {} rows of {} tokens are more than a step can number",
                           s.slots, s.micro_batch, s.sequence_length),
               "micro_batch");
  return {};
}

std::string readable(std::uint64_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1024.0 * 1024.0));
}

std::int64_t trainable_of(const model::adapter_layout& layout) {
  std::int64_t sum = 0;
  for (const auto& module : layout.modules) sum += module.rank * (module.columns + module.rows);
  return sum;
}

std::int64_t widest_ranks(const model::adapter_layout& layout) {
  std::int64_t widest = 0;
  for (const auto& module : layout.modules)
    widest = std::max(widest, module.first_rank + module.rank);
  return widest;
}

int embedding_rank(const group_layout& layout) {
  const auto& all = layout.parameters;
  const auto found = std::find_if(all.begin(), all.end(), [](const parameter& one) {
    return one.name.ends_with("embed_tokens.weight");
  });
  ensure(found != all.end(), "a model without an embedding");
  const auto tensor = static_cast<std::size_t>(found - all.begin());
  for (int rank = 0; rank < layout.ranks(); ++rank)
    if (tensor < layout.shards[static_cast<std::size_t>(rank)].last_tensor) return rank;
  return -1;
}

}  // namespace

result<job_plan> plan_job(const kernels::backend& device, const model::model_config& config,
                          const open_order& order, model::tensor_rank place) {
  if (auto fine = check(order, config); !fine) return fine.error();
  const auto& s = order.settings;
  const bool lora = s.method == training_method::lora;
  job_plan plan;
  if (lora) {
    auto layout = model::adapter_layout::make(device, config, s.rank, s.alpha, s.targets);
    if (!layout) return layout.error();
    plan.adapter = std::move(*layout);
    plan.layout.parameters = layout_of_adapter(device, config, plan.adapter);
    plan.trainable = trainable_of(plan.adapter);
    if (!order.apart) plan.memory.serving_copies = plan.adapter.bytes;
  } else {
    auto layout = parameter_layout::make(device, config, place);
    if (!layout) return layout.error();
    plan.layout.parameters = std::move(layout->parameters);
    for (const auto& tensor : layout->tensors) plan.trainable += tensor.rows * tensor.columns;
    const auto copies = serving_copy::bytes(device, config, s.serve_format);
    if (!copies) return copies.error();
    if (!order.apart) plan.memory.serving_copies = *copies;
    if (place.ranks > 1)
      plan.table_bytes = device.packed_bytes(kernels::weight_format::f32, config.vocabulary_size,
                                             config.model_size);
  }
  plan.layout.shards = shards_of(plan.layout.parameters, order.device_count);
  const auto bytes = plan.layout.floats() * sizeof(float);
  const auto own = plan.layout.shards[static_cast<std::size_t>(order.device_rank)].floats();

  plan.slots = s.slots / order.device_count;
  plan.slot_rows_max = s.micro_batch * s.sequence_length;
  plan.limits = {.rows = plan.slots * plan.slot_rows_max,
                 .sequence_length = s.sequence_length,
                 .recompute = s.recompute,
                 .adapter_ranks = widest_ranks(plan.adapter),
                 .rounded = s.precision == product_precision::bf16,
                 .head_columns = device.host_memory() ? 2048 : 8192};
  plan.steps = step_limits_of(config, plan.limits);
  plan.activation_bytes = activation_places(config, plan.limits, place).total;
  plan.scratch_floats = reduce_scratch_floats(order.device_count);

  plan.memory.parameters = bytes + plan.table_bytes;
  plan.memory.gradients = bytes + (order.device_count > 1 ? own * sizeof(float) : 0);
  plan.memory.optimizer = 2 * own * sizeof(float);
  if (!lora && order.device_count > 1) {
    plan.layout.embedding_rank = embedding_rank(plan.layout);
    plan.layout.embedded_rows = static_cast<std::size_t>(plan.limits.rows);
    plan.layout.embedded_columns = static_cast<std::size_t>(config.model_size);
    plan.embedded_bytes = plan.layout.embedded_rows * plan.layout.embedded_columns * sizeof(float);
  }
  if (order.apart)
    plan.memory.guests = guest_floats(plan.layout, order.device_rank) * sizeof(float);
  if (order.keeps >= 0)
    plan.memory.copies =
        3 * plan.layout.shards[static_cast<std::size_t>(order.keeps)].floats() * sizeof(float);
  plan.memory.activations =
      plan.activation_bytes + plan.scratch_floats * sizeof(float) + plan.embedded_bytes;
  plan.memory.workspace = device.workspace_bytes(plan.steps);
  return plan;
}

result<void> check_fits(const job_plan& plan, const open_order& order, const memory::ledger& book) {
  const auto& m = plan.memory;
  const auto free = book.free();
  if (m.total() <= free) return {};
  const bool lora = order.settings.method == training_method::lora;
  // What no smaller step would give back.
  const auto fixed = m.total() - m.activations - m.workspace;
  std::string help;
  std::string param;
  if (fixed > free) {
    help = lora ? "lower rank or give fewer targets"
                : "choose method \"lora\" or a smaller serve_format";
    param = lora ? "rank" : "method";
  } else {
    help = fmt::format("lower micro_batch or sequence_length{}",
                       order.settings.recompute ? "" : ", or set recompute");
    param = "micro_batch";
  }
  return error{
      errc::no_memory,
      fmt::format(
          "{} of {} parameters wants {}: parameters {}, gradients {}, optimizer {}, "
          "activations of {} rows {}, workspace {}, serving {} {}{}; {} of {} are free; {}, "
          "or raise devices.memory_fraction",
          lora ? "LoRA training" : "full training", plan.trainable, readable(m.total()),
          readable(m.parameters), readable(m.gradients), readable(m.optimizer), plan.limits.rows,
          readable(m.activations), readable(m.workspace), lora ? "adapter" : "copies",
          readable(m.serving_copies),
          m.guests > 0 ? ", other devices' work " + readable(m.guests) : "", readable(free),
          readable(book.capacity()), help),
      param};
}

}  // namespace tandem::train
