// What a trainer holds, and what each of its files does with it: trainer.cpp opens it and carries
// orders out, trainer_orders.cpp makes their programs, trainer_ranks.cpp is for ranks that hold a
// model together.
#pragma once

#include "runtime/model/load_plan.hpp"
#include "runtime/train/job_plan.hpp"
#include "runtime/train/lora_start.hpp"
#include "runtime/train/rank_exchange.hpp"
#include "runtime/train/rank_layout.hpp"
#include "runtime/train/reduce_group.hpp"
#include "runtime/train/train_pass.hpp"
#include "runtime/train/trainer.hpp"

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

namespace tandem::train {

// What a rank has of a job.
struct trained_part {
  std::optional<model::load_plan> masters;  // full training
  rank_layout layout;
};

// `plan` gets the room that bringing things together takes. One of `base` and `source` is there.
result<trained_part> part_of_rank(kernels::backend& device, const model::model_config& config,
                                  const model::weights* base, const model::model_source* source,
                                  kernels::collective& ranks, job_plan& plan);

struct trainer::state {
  state(kernels::backend& d, const open_order& o, job_plan p, kernels::collective* r)
      : device(d),
        order(o),
        plan(std::move(p)),
        ranks(r),
        memory(std::make_shared<device_memory>()) {}

  bool lora() const { return order.settings.method == training_method::lora; }
  // Whether this device's arenas are one rank's part.
  bool parted() const { return exchange != nullptr; }
  result<void> take(std::shared_ptr<memory::ledger> book);
  result<void> take_parameters();
  void plan_opening();
  result<void> take_arenas();
  result<std::shared_ptr<model::adapter>> blank_adapter() const;

  result<void> check(const train::order& what) const;
  void plan_round(std::vector<slot_rows> slots);
  void plan_zeros();
  void plan_publish_adapter();
  void plan_norm_or_update();
  void plan_table(std::vector<piece>& to);
  void expose_embedding();
  embedding_chain embedding() const;  // full training
  kernels::packed_matrix table() const;
  // Whose memory the order in hand is about.
  device_memory& home() const { return *group[static_cast<std::size_t>(now.home)]; }
  // Orders that change a home's memory piece by piece and may be taken over half-way.
  bool resumes() const { return now.kind == order_kind::reduce || now.kind == order_kind::update; }
  void skip_what_is_done();

  kernels::backend& device;
  open_order order;
  job_plan plan;
  kernels::collective* ranks;
  std::unique_ptr<rank_exchange> exchange;  // of a rank in full training
  rank_layout parts;                        // likewise
  std::shared_ptr<const model::model_source> source;
  std::unique_ptr<model::load_run> loading;
  std::vector<piece> opening;
  std::size_t opened_pieces = 0;
  std::shared_ptr<const model::weights> base;  // LoRA; full training has its masters in `memory`
  std::shared_ptr<device_memory> memory;
  std::vector<std::shared_ptr<device_memory>> group;
  opened facts;
  std::unique_ptr<train_pass> pass;
  std::shared_ptr<model::adapter> spare;  // LoRA: what is published next
  std::vector<zero_block> zeros;          // LoRA

  train::order now;
  std::vector<piece> pieces;
  std::size_t next = 0;
  bool open_ended = false;  // an order whose outcome was not taken yet
  outcome came;
};

}  // namespace tandem::train
