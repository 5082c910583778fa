// The parts of an export: each writes its files into a folder that is under way.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/durable_folder.hpp"
#include "runtime/result.hpp"
#include "runtime/train/checkpoint.hpp"
#include "runtime/train/export.hpp"
#include "runtime/train/trained_weights.hpp"

#include <filesystem>

namespace tandem::train {

struct export_job {
  kernels::backend& device;
  const std::filesystem::path& checkpoint;
  const checkpoint_facts& facts;
  const std::filesystem::path& base_path;
  const model::model_source& base;
  const export_options& options;

  // The .gguf file of a base that is one, or an empty path.
  std::filesystem::path gguf() const;
  void progress(double fraction) const {
    if (options.progress) options.progress(fraction);
  }
};

// Each says first how many bytes it will need, then writes.
result<std::uint64_t> bytes_of_adapter(const export_job& job);
result<void> write_adapter(const export_job& job, const durable_folder& folder);
result<std::uint64_t> bytes_of_model(const export_job& job);
result<void> write_model(const export_job& job, const durable_folder& folder);
result<void> write_gguf(const export_job& job, const durable_folder& folder);

// Numbers of a tensor on their way into a file, a piece of rows at a time. `read` gives one row as
// float32 and runs on all of the device's threads; `write` takes the bytes of whole rows in order.
result<void> stream_rows(kernels::backend& device, std::int64_t rows, std::int64_t columns,
                         kernels::source_format format, std::string_view name,
                         kernels::function_ref<void(std::int64_t row, float* out)> read,
                         kernels::function_ref<result<void>(std::span<const std::byte>)> write);

}  // namespace tandem::train
