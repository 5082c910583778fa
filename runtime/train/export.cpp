#include "runtime/train/export.hpp"

#include "runtime/formats/number_format.hpp"
#include "runtime/train/export_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <system_error>
#include <utility>

namespace tandem::train {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t piece_floats = std::int64_t{4} << 20;

result<void> check_folder(const fs::path& folder) {
  std::error_code code;
  if (!fs::exists(fs::symlink_status(folder, code))) return {};
  if (fs::is_directory(folder, code) && fs::is_empty(folder, code) && !code) return {};
  return error{errc::conflict,
               fmt::format("{} is there already and not an empty folder: export into another",
                           folder.string()),
               {}};
}

result<void> check_options(const checkpoint_facts& facts, const export_options& options) {
  if (options.form == export_form::adapter && facts.settings.method != training_method::lora)
    return error{
        errc::bad_request,
        fmt::format("{} was a full training: it has no adapter; export it merged", facts.job),
        {}};
  const bool block = options.format == kernels::source_format::q8_0;
  if (block && options.form != export_form::gguf)
    return error{errc::bad_request, "q8_0 is a format of GGUF files: add --gguf", {}};
  if (options.form == export_form::adapter && options.format != kernels::source_format::f32)
    return error{errc::bad_request, "an adapter is exported as f32, as peft keeps it", {}};
  return {};
}

result<exported> listed(const fs::path& folder) {
  exported done{folder, {}, 0};
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(folder, code)) {
    done.files.push_back(entry.path().filename().string());
    done.bytes += entry.file_size(code);
  }
  std::sort(done.files.begin(), done.files.end());
  return done;
}

}  // namespace

fs::path export_job::gguf() const {
  if (base_path.extension() == ".gguf") return base_path;
  std::error_code code;
  if (!fs::is_directory(base_path, code) || fs::exists(base_path / "config.json", code)) return {};
  for (const auto& entry : fs::directory_iterator(base_path, code))
    if (entry.path().extension() == ".gguf") return entry.path();
  return {};
}

result<exported> export_checkpoint(kernels::backend& device, const fs::path& checkpoint,
                                   const fs::path& base_path, const fs::path& folder,
                                   const export_options& options) {
  const auto facts = read_checkpoint_facts(checkpoint);
  if (!facts) return facts.error();
  if (auto good = check_options(*facts, options); !good) return good.error();
  if (auto good = check_folder(folder); !good) return good.error();
  const auto base = model::model_source::open(base_path);
  if (!base)
    return error{base.error().code,
                 fmt::format("the base model of {}: {}", facts->job, base.error().detail),
                 {}};
  const export_job job{device, checkpoint, *facts, base_path, **base, options};
  const bool adapter = options.form == export_form::adapter;
  const auto bytes = adapter ? bytes_of_adapter(job) : bytes_of_model(job);
  if (!bytes) return bytes.error();
  auto begun = durable_folder::begin(folder, *bytes);
  if (!begun) return begun.error();
  auto written = adapter                             ? write_adapter(job, *begun)
                 : options.form == export_form::gguf ? write_gguf(job, *begun)
                                                     : write_model(job, *begun);
  if (!written) return written.error();
  if (auto committed = begun->commit(); !committed) return committed.error();
  return listed(folder);
}

result<void> stream_rows(kernels::backend& device, std::int64_t rows, std::int64_t columns,
                         kernels::source_format format, std::string_view name,
                         kernels::function_ref<void(std::int64_t row, float* out)> read,
                         kernels::function_ref<result<void>(std::span<const std::byte>)> write) {
  const std::size_t row_bytes = kernels::source_row_bytes(format, columns);
  if (row_bytes == 0)
    return error{errc::unsupported,
                 fmt::format("tensor '{}' has {} columns, no whole blocks of {}: choose another "
                             "--dtype",
                             name, columns, formats::name_of(format)),
                 {}};
  const std::int64_t most = std::clamp(piece_floats / columns, std::int64_t{1}, rows);
  std::vector<float> floats(static_cast<std::size_t>(most * columns));
  std::vector<std::byte> bytes(static_cast<std::size_t>(most) * row_bytes);
  std::atomic<bool> fits{true};
  for (std::int64_t first = 0; first < rows; first += most) {
    const std::int64_t count = std::min(most, rows - first);
    device.for_each(count, [&](std::int64_t r) {
      const auto at = static_cast<std::size_t>(r);
      float* const out = floats.data() + r * columns;
      read(first + r, out);
      if (!formats::store_numbers(format, {out, static_cast<std::size_t>(columns)},
                                  std::span(bytes).subspan(at * row_bytes, row_bytes)))
        fits = false;
    });
    if (!fits)
      return error{errc::unsupported,
                   fmt::format("tensor '{}' holds numbers above 65504, the most that {} has: "
                               "choose another --dtype",
                               name, formats::name_of(format)),
                   {}};
    if (auto written = write(std::span(bytes).first(static_cast<std::size_t>(count) * row_bytes));
        !written)
      return written;
  }
  return {};
}

}  // namespace tandem::train
