#include "runtime/serve/read_version.hpp"

#include "runtime/train/checkpoint.hpp"

#include <fmt/format.h>

#include <utility>

namespace tandem::serve {
namespace {

std::span<float> floats_of(std::span<std::byte> bytes) {
  return {reinterpret_cast<float*>(bytes.data()), bytes.size() / sizeof(float)};
}

result<variant> read_adapter(kernels::backend& device, const std::shared_ptr<memory::ledger>& book,
                             const model::weights& base, const std::string& checkpoint,
                             const train::job_settings& settings, std::uint64_t version) {
  const auto layout = model::adapter_layout::make(device, base.config, settings.rank,
                                                  settings.alpha, settings.targets);
  if (!layout) return layout.error();
  auto made = model::adapter::reserve(device, *book, base.config, *layout);
  if (!made) return made.error();
  auto& adapter = **made;
  adapter.version = version;
  adapter.book = book;
  const auto numbers = floats_of(adapter.memory.bytes().first(layout->bytes));
  if (auto read = train::read_parameters(checkpoint, numbers); !read) return read.error();
  return variant{version, *std::move(made), nullptr};
}

}  // namespace

result<variant> read_version(kernels::backend& device, const std::shared_ptr<memory::ledger>& book,
                             const model::weights& base, const std::string& checkpoint,
                             std::uint64_t version) {
  const auto facts = train::read_checkpoint_facts(checkpoint);
  if (!facts) return facts.error();
  if (facts->settings.method == train::training_method::lora)
    return read_adapter(device, book, base, checkpoint, facts->settings, version);
  return error{errc::internal, "to be read", {}};
}

}  // namespace tandem::serve
