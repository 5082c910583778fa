#include "runtime/serve/backend_device.hpp"

#include "kernels/cpu/cpu_backend.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "runtime/model/forward.hpp"
#include "runtime/serve/memory_plan.hpp"
#include "runtime/serve/read_version.hpp"
#include "runtime/serve/tensor_device.hpp"

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

// Of bytes for a whole group's keys and values, what one rank's key heads take.
std::uint64_t own_share(std::uint64_t bytes, const model::model_config& config,
                        model::tensor_rank place) {
  if (place.ranks == 1) return bytes;
  const auto split = model::tensor_split::make(config, place);
  ensure(split.has_value(), "a model that can be split");
  std::int64_t heads = 0;
  for (const auto& part : split->parts) heads += part.key_heads.count;
  return bytes / static_cast<std::uint64_t>(heads) *
         static_cast<std::uint64_t>(split->own().key_heads.count);
}

}  // namespace

backend_device::backend_device(const device_spec& spec, std::unique_ptr<kernels::backend> backend,
                               std::shared_ptr<memory::memory_source> source,
                               std::uint64_t capacity, std::shared_ptr<memory::shared_pages> lent)
    : name_(spec.name),
      lent_(std::move(lent)),
      ledger_(std::make_shared<memory::ledger>(capacity, std::move(source), lent_)),
      backend_(std::move(backend)) {}

void backend_device::become(model::tensor_rank place, kernels::collective& ranks) {
  place_ = place;
  ranks_ = &ranks;
}

device_facts backend_device::facts() const {
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

result<load_choice> backend_device::choose(const load_order& order) const {
  const auto format = model::load_format_from(order.format);
  if (!format)
    return error{
        errc::bad_request,
        fmt::format("model.format '{}' is none of native, f32, bf16, fp8, q8_0, q4_1, dummy",
                    order.format),
        "model.format"};
  auto source = model::model_source::open(order.path);
  if (!source) return source.error();
  const auto& config = (*source)->config();
  const auto forecast = (*source)->forecast(*backend_, *format, place_);
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
           {limits.max_batch_tokens, limits.max_logit_rows, limits.context_length, 0, *kv}, place_),
       .kv_block_bytes = model::forward_pass::kv_block_bytes(*backend_, config, *kv, place_),
       .model_context = config.context_length,
       .wanted_context = order.context_length,
       .wanted_kv_bytes = own_share(static_cast<std::uint64_t>(order.kv_bytes), config, place_)});
  if (!plan) return plan.error();
  limits.context_length = plan->context_length;
  limits.kv_blocks = plan->kv_blocks;

  return load_choice{*std::move(source), *format, limits};
}

result<loaded_model> backend_device::load(const load_choice& choice) {
  unload();
  auto weights = choice.source->load(*backend_, *ledger_, choice.format, {}, place_);
  if (!weights) return weights.error();
  const auto& limits = choice.limits;
  auto runner = step_runner::create(*backend_, *ledger_, *weights, limits, ranks_);
  if (!runner) return runner.error();
  runner_ = *std::move(runner);
  base_ = *weights;
  return loaded_model{.weights_version = (*weights)->version,
                      .precision = (*weights)->precision,
                      .kv_format = limits.kv == kernels::kv_format::f32 ? "f32" : "f16",
                      .parameter_count = static_cast<std::int64_t>((*weights)->parameter_count),
                      .context_length = limits.context_length,
                      .kv_blocks = limits.kv_blocks,
                      .max_logit_rows = limits.max_logit_rows,
                      .facts = facts(),
                      .kv = kv_of(*runner_, limits.kv),
                      .steps_ahead = !backend_->host_memory()};
}

result<loaded_model> backend_device::load(const load_order& order) {
  unload();
  const auto choice = choose(order);
  if (!choice) return choice.error();
  return load(*choice);
}

void backend_device::unload() {
  trainer_.reset();
  runner_.reset();
  base_.reset();
}

result<void> backend_device::begin(step_plan plan) {
  if (!runner_) return no_model("a step");
  for (auto& copy : plan.copies) {
    if (!copy.from || copy.from->is_here()) continue;
    auto here = memory::brought_here(*copy.from);
    if (!here) return error{here.error().code, here.error().detail, kv_out_of_reach};
    copy.from = *std::move(here);
  }
  return runner_->begin(std::move(plan));
}

void backend_device::reset() {
  if (runner_) runner_->reset();
}

result<device_facts> backend_device::add_variant(variant_id id, const variant& what) {
  if (!runner_) return no_model("a version");
  variant own = what;
  if (own.weights && own.weights->book != ledger_)
    return error{
        errc::bad_request,
        fmt::format("{}: weights version {} lies in another device's memory", name_, what.version),
        {}};
  if (own.adapter && own.adapter->book != ledger_) {
    auto copied = copy_of(*own.adapter);
    if (!copied) return copied.error();
    own.adapter = *std::move(copied);
  }
  if (auto added = runner_->add_variant(id, own); !added) return added.error();
  return facts();
}

void backend_device::remove_variant(variant_id id) {
  if (runner_) runner_->remove_variant(id);
}

result<variant> backend_device::load_variant(const std::string& checkpoint, std::uint64_t version,
                                             const pause_point& pause) {
  if (!runner_) return no_model("a version");
  return read_version(*backend_, ledger_, runner_->model(), checkpoint, version, pause);
}

result<std::shared_ptr<const model::adapter>> backend_device::adapter_part(
    const model::adapter_layout& whole, std::span<std::byte> whole_bytes, std::uint64_t version) {
  if (!runner_) return no_model("a version");
  auto made =
      model::adapter_part(*backend_, *ledger_, runner_->model().config, whole, whole_bytes, place_);
  if (!made) return made.error();
  (*made)->version = version;
  (*made)->book = ledger_;
  return std::shared_ptr<const model::adapter>(*std::move(made));
}

result<std::shared_ptr<train::weights_part>> backend_device::weights_part(std::string_view format,
                                                                          std::uint64_t version) {
  if (!runner_) return no_model("a version");
  auto room = train::weights_part::reserve(*backend_, ledger_, runner_->model().config, format,
                                           place_, version);
  if (!room) return room.error();
  return std::shared_ptr<train::weights_part>(*std::move(room));
}

result<train::opened> backend_device::open_training(const train::open_order& order,
                                                    const pause_point& pause) {
  if (!base_)
    return error{errc::unavailable, fmt::format("{}: training before a model", name_), ""};
  trainer_.reset();
  auto opened = train::trainer::open(*backend_, ledger_, base_, order, pause, ranks_);
  if (!opened) {
    auto why = opened.error();
    why.detail = fmt::format("{}: {}", name_, why.detail);
    return why;
  }
  trainer_ = *std::move(opened);
  job_ = order.job;
  return trainer_->facts();
}

void backend_device::join_training(const std::string& job,
                                   std::vector<std::shared_ptr<train::trainer_memory>> group) {
  if (trainer_ && job == job_) trainer_->join(std::move(group));
}

result<void> backend_device::begin_training(train::order what) {
  if (!trainer_ || what.job != job_)
    return error{errc::conflict, fmt::format("{}: {} is not open here", name_, what.job), ""};
  return trainer_->begin(std::move(what));
}

void backend_device::drop_training() {
  if (trainer_) trainer_->give_up();
}

void backend_device::close_training(const std::string& job) {
  if (job == job_) trainer_.reset();
}

error backend_device::no_model(std::string_view what) const {
  return {errc::conflict, fmt::format("{}: {} before a model", name_, what), ""};
}

std::shared_ptr<const memory::kv_memory> backend_device::kv_of(const step_runner& runner,
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
result<std::shared_ptr<const model::adapter>> backend_device::copy_of(const model::adapter& from) {
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

std::unique_ptr<device> make_lending_device(const device_spec& spec) {
  if (spec.gpu >= 0 || !spec.ranks.empty()) return make_device(spec);
  return std::make_unique<backend_device>(spec, kernels::cpu::make_backend({.cores = spec.cores}),
                                          memory::host_memory(), spec.memory_bytes,
                                          std::make_shared<memory::shared_pages>());
}

std::unique_ptr<device> make_device(const device_spec& spec) {
  if (!spec.ranks.empty()) return make_tensor_device(spec);
  return make_plain_device(spec);
}

std::unique_ptr<backend_device> make_plain_device(const device_spec& spec) {
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
