#include "runtime/serve/read_version.hpp"

#include "kernels/cpu/cpu_backend.hpp"
#include "runtime/device_spec.hpp"
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

// A checkpoint's numbers lie as a CPU device has them: who reads them into its memory.
struct reader {
  kernels::backend& device;
  const std::shared_ptr<memory::ledger>& book;
};

result<variant> read_adapter(kernels::backend& device, const std::shared_ptr<memory::ledger>& book,
                             const reader& from, const model::weights& base,
                             const std::string& checkpoint, const train::job_settings& settings,
                             std::uint64_t version, const pause_point& pause) {
  const auto layout = model::adapter_layout::make(from.device, base.config, settings.rank,
                                                  settings.alpha, settings.targets);
  if (!layout) return layout.error();
  auto made = model::adapter::reserve(from.device, *from.book, base.config, *layout);
  if (!made) return made.error();
  auto& adapter = **made;
  adapter.version = version;
  adapter.book = from.book;
  const auto numbers = floats_of(adapter.memory.bytes().first(layout->bytes));
  if (auto read = train::read_parameters(checkpoint, numbers, pause); !read) return read.error();
  if (&from.device == &device) return variant{version, *std::move(made), nullptr};
  auto copied = model::copy_adapter(from.device, adapter, device, book, base.config);
  if (!copied) return copied.error();
  return variant{version, *std::move(copied), nullptr};
}

result<variant> read_weights(kernels::backend& device, const std::shared_ptr<memory::ledger>& book,
                             const reader& from, const model::weights& base,
                             const std::string& checkpoint, const train::job_settings& settings,
                             std::uint64_t version, const pause_point& pause) {
  auto masters =
      train::reserve_weights(from.device, from.book, base.config, "f32", memory::owner::weights,
                             fmt::format("reading version {} of a full fine-tuning", version));
  if (!masters) return masters.error();
  auto& read = **masters;
  read.version = version;
  if (auto filled = train::read_parameters(checkpoint, floats_of(read.memory.bytes()), pause);
      !filled)
    return filled.error();
  if (settings.serve_format == "f32" && &from.device == &device)
    return variant{version, nullptr, *std::move(masters)};
  auto copy = train::serving_copy::write_one(device, book, from.device, **masters,
                                             settings.serve_format, version, pause);
  if (!copy) return copy.error();
  return variant{version, nullptr, *std::move(copy)};
}

}  // namespace

result<variant> read_version(kernels::backend& device, const std::shared_ptr<memory::ledger>& book,
                             const model::weights& base, const std::string& checkpoint,
                             std::uint64_t version, const pause_point& pause) {
  const auto facts = train::read_checkpoint_facts(checkpoint);
  if (!facts) return facts.error();
  // A GPU's numbers lie otherwise: the host reads them first, into memory of its own.
  std::unique_ptr<kernels::backend> host;
  auto host_book = book;
  if (!device.host_memory()) {
    host = kernels::cpu::make_backend({});
    host_book = std::make_shared<memory::ledger>(this_machine().memory_bytes);
  }
  const reader from{host ? *host : device, host_book};
  if (facts->settings.method == train::training_method::lora)
    return read_adapter(device, book, from, base, checkpoint, facts->settings, version, pause);
  return read_weights(device, book, from, base, checkpoint, facts->settings, version, pause);
}

}  // namespace tandem::serve
