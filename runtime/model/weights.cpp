#include "runtime/model/weights.hpp"

#include "runtime/model/load_plan.hpp"
#include "runtime/model/model_sources.hpp"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace tandem::model {

namespace {

constexpr std::array<std::pair<load_format, std::string_view>, 7> load_formats{
    {{load_format::native, "native"},
     {load_format::f32, "f32"},
     {load_format::bf16, "bf16"},
     {load_format::fp8, "fp8"},
     {load_format::q8_0, "q8_0"},
     {load_format::q4_1, "q4_1"},
     {load_format::dummy, "dummy"}}};

result<std::vector<std::filesystem::path>> gguf_files_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> found;
  std::error_code failed;
  for (std::filesystem::directory_iterator entry(folder, failed), end; !failed && entry != end;
       entry.increment(failed))
    if (entry->path().extension() == ".gguf") found.push_back(entry->path());
  if (failed) return error{errc::io, fmt::format("{}: {}", folder.string(), failed.message()), {}};
  return found;
}

}  // namespace

std::optional<load_format> load_format_from(std::string_view name) {
  for (const auto& [format, spelling] : load_formats)
    if (spelling == name) return format;
  return std::nullopt;
}

std::string_view name_of(load_format format) {
  for (const auto& [known, spelling] : load_formats)
    if (known == format) return spelling;
  ensure(false, "a load format without a name");
  return {};
}

result<std::shared_ptr<const model_source>> model_source::open(const std::filesystem::path& path) {
  std::error_code failed;
  const auto status = std::filesystem::status(path, failed);
  if (!std::filesystem::exists(status))
    return error{
        errc::not_found,
        fmt::format("there is no model at {}; `tandem pull` gets one from the hub", path.string()),
        {}};
  if (!std::filesystem::is_directory(status)) return open_gguf_source(path);
  if (std::filesystem::exists(path / "config.json", failed)) return open_folder_source(path);
  auto files = gguf_files_in(path);
  if (!files) return files.error();
  if (files->size() == 1) return open_gguf_source(files->front());
  return error{errc::bad_file,
               fmt::format("{}: no config.json and {} .gguf files; name the file to load",
                           path.string(), files->size()),
               {}};
}

result<load_plan> tensor_source::plan(const kernels::backend& device, load_format format,
                                      tensor_rank place, table_rows embedding) const {
  auto plan = plan_load(config_, tensors_, format, device, place, embedding);
  if (plan) return plan;
  error why = plan.error();
  why.detail = name_ + ": " + why.detail;
  return why;
}

result<load_plan> plan_masters(const model_source& source, const kernels::backend& device,
                               tensor_rank place) {
  const auto* const files = dynamic_cast<const tensor_source*>(&source);
  ensure(files != nullptr, "a model of files");
  return files->plan(device, load_format::f32, place, table_rows::own);
}

result<load_forecast> tensor_source::forecast(const kernels::backend& device, load_format format,
                                              tensor_rank place) const {
  auto planned = plan(device, format, place);
  if (!planned) return planned.error();
  return load_forecast{planned->bytes, planned->model->precision};
}

result<std::shared_ptr<const weights>> tensor_source::load(
    kernels::backend& device, memory::ledger& book, load_format format,
    const std::function<void(double)>& progress, tensor_rank place) const {
  auto planned = plan(device, format, place);
  if (!planned) return planned.error();
  return run_load(std::move(*planned), device, book, name_, progress);
}

}  // namespace tandem::model
