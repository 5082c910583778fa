#include "runtime/train/trained_weights.hpp"

#include "runtime/model/families.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace tandem::train {
namespace {

// What is read here is bounded by the machine alone, not by a device's budget.
std::unique_ptr<memory::ledger> open_book() {
  return std::make_unique<memory::ledger>(std::numeric_limits<std::uint64_t>::max() / 2);
}

std::span<float> floats_of(std::span<std::byte> bytes) {
  return {reinterpret_cast<float*>(bytes.data()), bytes.size() / sizeof(float)};
}

error of_another_model(const std::filesystem::path& checkpoint, std::size_t has,
                       std::size_t wants) {
  return {errc::conflict,
          fmt::format("{} holds {} numbers, its base model and settings make {}: the base at its "
                      "path is not the one it was trained from",
                      checkpoint.string(), has, wants),
          {}};
}

std::size_t floats_in(const checkpoint_facts& facts) {
  std::size_t floats = 0;
  for (const auto& one : facts.layout) floats = std::max(floats, one.first_float + one.floats);
  return floats;
}

bool same_layout(const std::vector<parameter>& one, const std::vector<parameter>& other) {
  return std::equal(one.begin(), one.end(), other.begin(), other.end(),
                    [](const parameter& a, const parameter& b) {
                      return a.name == b.name && a.first_float == b.first_float &&
                             a.floats == b.floats;
                    });
}

}  // namespace

result<std::unique_ptr<trained_adapter>> trained_adapter::read(
    const kernels::backend& device, const model::model_config& config,
    const std::filesystem::path& checkpoint, const checkpoint_facts& facts) {
  const job_settings& settings = facts.settings;
  auto layout =
      model::adapter_layout::make(device, config, settings.rank, settings.alpha, settings.targets);
  if (!layout) return layout.error();
  auto made = std::unique_ptr<trained_adapter>(new trained_adapter(device));
  made->layout_ = std::move(*layout);
  const std::size_t bytes = made->layout_.bytes;
  if (floats_in(facts) != bytes / sizeof(float))
    return of_another_model(checkpoint, floats_in(facts), bytes / sizeof(float));
  made->book_ = open_book();
  auto memory =
      memory::arena::reserve(*made->book_, memory::owner::adapters, bytes, "reading an adapter");
  if (!memory) return memory.error();
  made->memory_ = std::move(*memory);
  const auto taken = made->memory_.take(bytes);
  if (auto read = read_parameters(checkpoint, floats_of(taken)); !read) return read.error();
  made->layers_ = model::place_adapter(device, config, made->layout_, taken.data());
  return made;
}

result<std::unique_ptr<trained_weights>> trained_weights::read(
    kernels::backend& device, const model::model_source& base,
    const std::filesystem::path& checkpoint, const checkpoint_facts& facts,
    const std::function<void(double)>& progress) {
  // Files of this family as Hugging Face has them, whatever the base's file is.
  auto config = base.config();
  config.norm_weight_plus_one = model::stores_norms_minus_one(config.family);
  auto layout = parameter_layout::make(device, config);
  if (!layout) return layout.error();
  auto made = std::unique_ptr<trained_weights>(new trained_weights(device));
  made->layout_ = std::move(*layout);
  made->book_ = open_book();
  auto done = facts.settings.method == training_method::full
                  ? made->read_full(checkpoint, facts)
                  : made->read_merged(device, base, checkpoint, facts, progress);
  if (!done) return done.error();
  return made;
}

result<void> trained_weights::read_full(const std::filesystem::path& checkpoint,
                                        const checkpoint_facts& facts) {
  if (!same_layout(facts.layout, layout_.parameters))
    return of_another_model(checkpoint, floats_in(facts), layout_.floats);
  const std::size_t bytes = layout_.floats * sizeof(float);
  auto memory = memory::arena::reserve(*book_, memory::owner::weights, bytes,
                                       "reading the trained parameters");
  if (!memory) return memory.error();
  memory_ = std::move(*memory);
  const auto floats = floats_of(memory_.take(bytes));
  arena_ = floats;
  return read_parameters(checkpoint, floats);
}

result<void> trained_weights::read_merged(kernels::backend& device, const model::model_source& base,
                                          const std::filesystem::path& checkpoint,
                                          const checkpoint_facts& facts,
                                          const std::function<void(double)>& progress) {
  const auto adapter = trained_adapter::read(device, base.config(), checkpoint, facts);
  if (!adapter) return adapter.error();
  const auto& layout = (*adapter)->layout();
  scale_ = layout.scale;
  for (const auto& module : layout.modules)
    added_.emplace(module.name + ".weight", (*adapter)->numbers(module));
  auto loaded = base.load(device, *book_, model::load_format::f32, progress);
  if (!loaded) return loaded.error();
  base_ = std::move(*loaded);
  // The parameter arena of full training is these weights' own memory.
  arena_ = floats_of(base_->memory.bytes().first(base_->memory.used()));
  ensure(arena_.size() == layout_.floats, "f32 weights that lie as parameters do");
  return {};
}

void trained_weights::row(const named_tensor& tensor, std::int64_t row, float* out) const {
  read_row(device_, tensor, arena_, row, out);
  const auto found = added_.find(tensor.name);
  if (found == added_.end()) return;
  const auto& [a, b] = found->second;
  const auto columns = static_cast<std::size_t>(tensor.columns);
  const std::size_t rank = a.size() / columns;
  const float* const b_R = b.data() + static_cast<std::size_t>(row) * rank;
  for (std::size_t r = 0; r < rank; ++r) {
    const float factor = scale_ * b_R[r];
    for (std::size_t c = 0; c < columns; ++c) out[c] += factor * a[r * columns + c];
  }
}

void trained_weights::file_row(const named_tensor& tensor, std::int64_t row_index,
                               float* out) const {
  row(tensor, row_index, out);
  as_in_file(tensor, out);
}

}  // namespace tandem::train
