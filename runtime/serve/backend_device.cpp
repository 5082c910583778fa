// One device of this machine, a range of cores or a GPU: the backend makes the difference.
#include "runtime/serve/device.hpp"

#include "kernels/cpu/cpu_backend.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "runtime/model/forward.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/serve/memory_plan.hpp"
#include "runtime/serve/read_version.hpp"
#include "runtime/serve/step_runner.hpp"
#include "runtime/train/trainer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace tandem::serve {
namespace {

std::optional<kernels::kv_format> kv_format_from(std::string_view name,
                                                 std::string_view precision) {
  if (name == "f32") return kernels::kv_format::f32;
  if (name == "f16") return kernels::kv_format::f16;
  if (name == "auto") return precision == "f32" ? kernels::kv_format::f32 : kernels::kv_format::f16;
  return {};
}

class backend_device final : public device {
 public:
  // `lent`: what KV blocks are made of where other processes may read them; else null.
  backend_device(const device_spec& spec, std::unique_ptr<kernels::backend> backend,
                 std::shared_ptr<memory::memory_source> source, std::uint64_t capacity,
                 std::shared_ptr<memory::shared_pages> lent = nullptr)
      : name_(spec.name),
        lent_(std::move(lent)),
        ledger_(std::make_shared<memory::ledger>(capacity, std::move(source), lent_)),
        backend_(std::move(backend)) {}

  void attach_calling_thread() override { backend_->attach_calling_thread(); }

  device_facts facts() const override {
    device_facts facts{.name = name_,
                       .backend = std::string(backend_->name()),
                       .threads = backend_->thread_count(),
                       .gpu = !backend_->host_memory(),
                       .memory_capacity = ledger_->capacity(),
                       .memory_by_owner = {}};
    for (std::size_t i = 0; i < memory::owner_count; ++i)
      facts.memory_by_owner[i] = ledger_->used_by(static_cast<memory::owner>(i));
    return facts;
  }

  result<loaded_model> load(const load_order& order) override {
    unload();
    const auto format = model::load_format_from(order.format);
    if (!format)
      return error{errc::bad_request,
                   fmt::format("model.format '{}' is none of native, f32, bf16, q8_0, q4_1, dummy",
                               order.format),
                   "model.format"};
    auto source = model::model_source::open(order.path);
    if (!source) return source.error();
    const auto& config = (*source)->config();
    const auto forecast = (*source)->forecast(*backend_, *format);
    if (!forecast) return forecast.error();
    const auto kv = kv_format_from(order.kv_format, forecast->precision);
    if (!kv)
      return error{errc::bad_request,
                   fmt::format("model.kv_format '{}' is none of auto, f16, f32", order.kv_format),
                   "model.kv_format"};

    runner_limits limits{.max_sequences = order.max_sequences,
                         .max_batch_tokens = std::max(order.max_batch_tokens, order.max_sequences),
                         .max_logit_rows = order.max_sequences,
                         .context_length = config.context_length,
                         .kv_blocks = 0,
                         .kv = *kv};
    if (order.context_length > 0)
      limits.context_length = std::min(limits.context_length, order.context_length);
    auto plan = plan_memory(
        {.capacity_bytes = ledger_->capacity(),
         .weight_bytes = forecast->bytes,
         .activation_bytes = model::forward_pass::activation_bytes(
             *backend_, config,
             {limits.max_batch_tokens, limits.max_logit_rows, limits.context_length, 0, *kv}),
         .kv_block_bytes = model::forward_pass::kv_block_bytes(*backend_, config, *kv),
         .model_context = config.context_length,
         .wanted_context = order.context_length,
         .wanted_kv_bytes = static_cast<std::uint64_t>(order.kv_bytes)});
    if (!plan) return plan.error();
    limits.context_length = plan->context_length;
    limits.kv_blocks = plan->kv_blocks;

    auto weights = (*source)->load(*backend_, *ledger_, *format);
    if (!weights) return weights.error();
    auto runner = step_runner::create(*backend_, *ledger_, *weights, limits);
    if (!runner) return runner.error();
    runner_ = *std::move(runner);
    base_ = *weights;
    return loaded_model{.weights_version = (*weights)->version,
                        .precision = (*weights)->precision,
                        .kv_format = *kv == kernels::kv_format::f32 ? "f32" : "f16",
                        .parameter_count = static_cast<std::int64_t>((*weights)->parameter_count),
                        .context_length = limits.context_length,
                        .kv_blocks = limits.kv_blocks,
                        .max_logit_rows = limits.max_logit_rows,
                        .facts = facts(),
                        .kv = kv_of(*runner_, *kv)};
  }

  void unload() override {
    trainer_.reset();
    runner_.reset();
    base_.reset();
  }

  result<void> begin(step_plan plan) override {
    if (!runner_) return no_model("a step");
    for (auto& copy : plan.copies) {
      if (!copy.from || copy.from->is_here()) continue;
      auto here = memory::brought_here(*copy.from);
      if (!here) return error{here.error().code, here.error().detail, kv_out_of_reach};
      copy.from = *std::move(here);
    }
    return runner_->begin(std::move(plan));
  }
  bool advance() override { return runner_->advance(); }
  step_result finish() override { return runner_->finish(); }
  void reset() override {
    if (runner_) runner_->reset();
  }

  result<device_facts> add_variant(variant_id id, const variant& what) override {
    if (!runner_) return no_model("a version");
    variant own = what;
    if (own.weights && own.weights->book != ledger_)
      return error{errc::bad_request,
                   fmt::format("{}: weights version {} lies in another device's memory", name_,
                               what.version),
                   {}};
    if (own.adapter && own.adapter->book != ledger_) {
      auto copied = copy_of(*own.adapter);
      if (!copied) return copied.error();
      own.adapter = *std::move(copied);
    }
    if (auto added = runner_->add_variant(id, own); !added) return added.error();
    return facts();
  }
  void remove_variant(variant_id id) override {
    if (runner_) runner_->remove_variant(id);
  }
  result<variant> load_variant(const std::string& checkpoint, std::uint64_t version,
                               const pause_point& pause) override {
    if (!runner_) return no_model("a version");
    return read_version(*backend_, ledger_, runner_->model(), checkpoint, version, pause);
  }

  result<train::opened> open_training(const train::open_order& order,
                                      const pause_point& pause) override {
    if (!base_)
      return error{errc::unavailable, fmt::format("{}: training before a model", name_), ""};
    trainer_.reset();
    auto opened = train::trainer::open(*backend_, ledger_, base_, order, pause);
    if (!opened) {
      auto why = opened.error();
      why.detail = fmt::format("{}: {}", name_, why.detail);
      return why;
    }
    trainer_ = *std::move(opened);
    job_ = order.job;
    return trainer_->facts();
  }
  void join_training(const std::string& job,
                     std::vector<std::shared_ptr<train::trainer_memory>> group) override {
    if (trainer_ && job == job_) trainer_->join(std::move(group));
  }
  result<void> begin_training(train::order what) override {
    if (!trainer_ || what.job != job_)
      return error{errc::conflict, fmt::format("{}: {} is not open here", name_, what.job), ""};
    return trainer_->begin(std::move(what));
  }
  bool advance_training() override { return trainer_->advance(); }
  result<train::outcome> finish_training() override { return trainer_->finish(); }
  void drop_training() override {
    if (trainer_) trainer_->give_up();
  }
  void close_training(const std::string& job) override {
    if (job == job_) trainer_.reset();
  }

 private:
  error no_model(std::string_view what) const {
    return {errc::conflict, fmt::format("{}: {} before a model", name_, what), ""};
  }

  std::shared_ptr<const memory::kv_memory> kv_of(const step_runner& runner,
                                                 kernels::kv_format format) const {
    const auto& kv = runner.pass().kv();
    // The ledger first: it must outlive what is booked in it.
    using keeper = std::pair<std::shared_ptr<memory::ledger>, std::shared_ptr<memory::arena>>;
    return std::make_shared<const memory::kv_memory>(memory::kv_memory{
        std::make_shared<const keeper>(ledger_, kv), kv->bytes(), runner.pass().kv_block_bytes(),
        fmt::format("{} {}", backend_->name(), format == kernels::kv_format::f32 ? "f32" : "f16"),
        lent_ ? lent_->place_of(kv->bytes()) : std::nullopt});
  }

  // The same numbers in this device's memory.
  result<std::shared_ptr<const model::adapter>> copy_of(const model::adapter& from) {
    const auto& config = runner_->model().config;
    if (from.layers.size() != config.layers.size())
      return error{errc::bad_request,
                   fmt::format("{}: an adapter of {} layers for a model of {}", name_,
                               from.layers.size(), config.layers.size()),
                   {}};
    auto made = model::adapter::reserve(*backend_, *ledger_, config, from.layout);
    if (!made) return made.error();
    auto& copy = **made;
    copy.version = from.version;
    copy.book = ledger_;
    const auto numbers = from.memory.bytes().first(from.layout.bytes);
    auto* const to = copy.memory.bytes().data();
    if (backend_->host_memory() && from.book != nullptr)
      from.book->source().read(numbers, to);  // it may be a GPU's
    else
      backend_->copy(numbers, to);
    backend_->finish();  // who gave it may take it back
    return std::shared_ptr<const model::adapter>(*std::move(made));
  }

  std::string name_;
  std::shared_ptr<memory::shared_pages> lent_;
  // Shared: published versions may outlive this device, and give their memory back then.
  std::shared_ptr<memory::ledger> ledger_;
  std::unique_ptr<kernels::backend> backend_;
  std::unique_ptr<step_runner> runner_;
  std::shared_ptr<const model::weights> base_;
  std::unique_ptr<train::trainer> trainer_;
  std::string job_;  // of the trainer
};

}  // namespace

std::unique_ptr<device> make_lending_device(const device_spec& spec) {
  if (spec.gpu >= 0) return make_device(spec);
  return std::make_unique<backend_device>(spec, kernels::cpu::make_backend({.cores = spec.cores}),
                                          memory::host_memory(), spec.memory_bytes,
                                          std::make_shared<memory::shared_pages>());
}

std::unique_ptr<device> make_device(const device_spec& spec) {
  if (spec.gpu < 0)
    return std::make_unique<backend_device>(spec, kernels::cpu::make_backend({.cores = spec.cores}),
                                            memory::host_memory(), spec.memory_bytes);
  auto backend = kernels::cuda::make_backend({.gpu = spec.gpu, .host_cores = spec.cores});
  // What the context took is gone already, and others may be on this GPU.
  const auto free = kernels::cuda::free_memory(spec.gpu);
  const auto spare = std::uint64_t{256} << 20U;
  return std::make_unique<backend_device>(
      spec, std::move(backend), memory::gpu_memory(spec.gpu),
      std::min(spec.memory_bytes, free > spare ? free - spare : 0));
}

}  // namespace tandem::serve
