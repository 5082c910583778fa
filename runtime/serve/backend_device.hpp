// One device of this machine, a range of cores or a GPU: the backend makes the difference. Or one
// rank of a group of such devices (tensor_device.hpp).
#pragma once

#include "kernels/collective.hpp"
#include "runtime/memory/shared_memory.hpp"
#include "runtime/model/tensor_split.hpp"
#include "runtime/serve/device.hpp"
#include "runtime/serve/step_runner.hpp"
#include "runtime/train/trainer.hpp"
#include "runtime/train/weights_part.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace tandem::serve {

// What a load order comes to on a device: the files, opened and checked, and how its memory is
// divided.
struct load_choice {
  std::shared_ptr<const model::model_source> source;
  model::load_format format = model::load_format::native;
  runner_limits limits;
};

class backend_device final : public device {
 public:
  // `lent`: what KV blocks are made of where other processes may read them; else null.
  backend_device(const device_spec& spec, std::unique_ptr<kernels::backend> backend,
                 std::shared_ptr<memory::memory_source> source, std::uint64_t capacity,
                 std::shared_ptr<memory::shared_pages> lent = nullptr);

  // From the next load on it is one of several ranks, which meet in `ranks`; that outlives it.
  void become(model::tensor_rank place, kernels::collective& ranks);
  kernels::backend& backend() { return *backend_; }
  // Null before a model is loaded.
  const model::weights* base() const { return base_.get(); }

  void attach_calling_thread() override { backend_->attach_calling_thread(); }
  device_facts facts() const override;

  // `load` in two halves: what would be loaded, and doing it. Ranks agree between the two.
  result<load_choice> choose(const load_order& order) const;
  result<loaded_model> load(const load_choice& choice);
  result<loaded_model> load(const load_order& order) override;
  void unload() override;

  result<void> begin(step_plan plan) override;
  bool advance() override { return runner_->advance(); }
  step_result finish() override { return runner_->finish(); }
  void reset() override;

  result<device_facts> add_variant(variant_id id, const variant& what) override;
  void remove_variant(variant_id id) override;
  result<variant> load_variant(const std::string& checkpoint, std::uint64_t version,
                               const pause_point& pause) override;
  // This rank's part of an adapter whose bytes lie at `whole_bytes` in the host's memory.
  result<std::shared_ptr<const model::adapter>> adapter_part(const model::adapter_layout& whole,
                                                             std::span<std::byte> whole_bytes,
                                                             std::uint64_t version);
  // Room for this rank's part of whole weights, which are then written piece by piece.
  result<std::shared_ptr<train::weights_part>> weights_part(std::string_view format,
                                                            std::uint64_t version);

  result<train::opened> open_training(const train::open_order& order,
                                      const pause_point& pause) override;
  void join_training(const std::string& job,
                     std::vector<std::shared_ptr<train::trainer_memory>> group) override;
  result<void> begin_training(train::order what) override;
  bool advance_training() override { return trainer_->advance(); }
  result<train::outcome> finish_training() override { return trainer_->finish(); }
  void drop_training() override;
  // As trainer::open_more, of the job that is open.
  bool open_more() { return trainer_->open_more(); }
  void close_training(const std::string& job) override;

 private:
  error no_model(std::string_view what) const;
  std::shared_ptr<const memory::kv_memory> kv_of(const step_runner& runner,
                                                 kernels::kv_format format) const;
  result<std::shared_ptr<const model::adapter>> copy_of(const model::adapter& from);

  std::string name_;
  std::shared_ptr<memory::shared_pages> lent_;
  // Shared: published versions may outlive this device, and give their memory back then.
  std::shared_ptr<memory::ledger> ledger_;
  std::unique_ptr<kernels::backend> backend_;
  model::tensor_rank place_;
  kernels::collective* ranks_ = nullptr;
  std::unique_ptr<step_runner> runner_;
  std::shared_ptr<const model::weights> base_;
  std::unique_ptr<train::trainer> trainer_;
  std::string job_;  // of the trainer
};

// The cores or the GPU that it names, alone.
std::unique_ptr<backend_device> make_plain_device(const device_spec& spec);

}  // namespace tandem::serve
