#include "runtime/serve/read_version.hpp"

#include "runtime/train/checkpoint.hpp"
#include "runtime/train/serving_copy.hpp"

#include <fmt/format.h>

#include <memory>
#include <utility>

namespace tandem::serve {
namespace {

std::span<float> floats_of(std::span<std::byte> bytes) {
  return {reinterpret_cast<float*>(bytes.data()), bytes.size() / sizeof(float)};
}

// The floats of a checkpoint into a device's memory, as they lie.
result<void> fill(kernels::backend& device, const std::string& checkpoint, std::span<float> floats,
                  const pause_point& pause) {
  return train::read_parameters(
      checkpoint, floats, pause,
      [&device](std::span<const std::byte> from, std::byte* to) { device.write(from, to); });
}

result<variant> read_adapter(kernels::backend& device, const std::shared_ptr<memory::ledger>& book,
                             const model::weights& base, const std::string& checkpoint,
                             const train::job_settings& settings, std::uint64_t version,
                             const pause_point& pause) {
  const auto layout = model::adapter_layout::make(device, base.config, settings.rank,
                                                  settings.alpha, settings.targets);
  if (!layout) return layout.error();
  auto made = model::adapter::reserve(device, *book, base.config, *layout);
  if (!made) return made.error();
  auto& adapter = **made;
  adapter.version = version;
  adapter.book = book;
  const auto numbers = floats_of(adapter.memory.bytes().first(layout->bytes));
  if (auto filled = fill(device, checkpoint, numbers, pause); !filled) return filled.error();
  return variant{version, *std::move(made), nullptr};
}

result<variant> read_weights(kernels::backend& device, const std::shared_ptr<memory::ledger>& book,
                             const model::weights& base, const std::string& checkpoint,
                             const train::job_settings& settings, std::uint64_t version,
                             const pause_point& pause) {
  auto masters =
      train::reserve_weights(device, book, base.config, "f32", memory::owner::weights,
                             fmt::format("reading version {} of a full fine-tuning", version));
  if (!masters) return masters.error();
  auto& read = **masters;
  read.version = version;
  if (auto filled = fill(device, checkpoint, floats_of(read.memory.bytes()), pause); !filled)
    return filled.error();
  if (settings.serve_format == "f32") return variant{version, nullptr, *std::move(masters)};
  auto copy = train::serving_copy::write_one(device, book, **masters, settings.serve_format,
                                             version, pause);
  if (!copy) return copy.error();
  return variant{version, nullptr, *std::move(copy)};
}

}  // namespace

result<variant> read_version(kernels::backend& device, const std::shared_ptr<memory::ledger>& book,
                             const model::weights& base, const std::string& checkpoint,
                             std::uint64_t version, const pause_point& pause) {
  const auto facts = train::read_checkpoint_facts(checkpoint);
  if (!facts) return facts.error();
  if (facts->settings.method == train::training_method::lora)
    return read_adapter(device, book, base, checkpoint, facts->settings, version, pause);
  return read_weights(device, book, base, checkpoint, facts->settings, version, pause);
}

}  // namespace tandem::serve
