// Hugging Face's layouts: the whole model, and peft's adapter.
#include "runtime/formats/gguf.hpp"
#include "runtime/formats/safetensors_writer.hpp"
#include "runtime/model/hf_config.hpp"
#include "runtime/model/model_sources.hpp"
#include "runtime/text/tokenizer_export.hpp"
#include "runtime/train/export_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace tandem::train {
namespace {

namespace fs = std::filesystem;
using text::value;

constexpr std::uint64_t shard_bytes = 5'000'000'000;
constexpr std::uint64_t small_files_bytes = std::uint64_t{64} << 20;
constexpr std::uint64_t most_small_bytes = std::uint64_t{256} << 20;

// What stands beside a base's weights and is as true of the tuned model.
constexpr std::array small_files{"generation_config.json",
                                 "tokenizer.json",
                                 "tokenizer_config.json",
                                 "tokenizer.model",
                                 "special_tokens_map.json",
                                 "added_tokens.json",
                                 "vocab.json",
                                 "merges.txt",
                                 "chat_template.jinja",
                                 "chat_template.json"};

std::string_view dtype_of(kernels::source_format format) {
  switch (format) {
    case kernels::source_format::f16:
      return "float16";
    case kernels::source_format::bf16:
      return "bfloat16";
    default:
      return "float32";
  }
}

std::vector<formats::tensor_description> descriptions(const std::vector<named_tensor>& tensors,
                                                      kernels::source_format format) {
  std::vector<formats::tensor_description> all;
  for (const auto& tensor : tensors) all.push_back({tensor.name, tensor.shape, format});
  return all;
}

result<void> write_tensors(const export_job& job, const trained_weights& weights,
                           const durable_folder& folder) {
  const auto tensors = descriptions(weights.tensors(), job.options.format);
  const auto shards = formats::shards_of(tensors, shard_bytes);
  std::size_t done = 0;
  for (const auto& shard : shards) {
    auto writer = formats::safetensors_writer::create(
        folder, shard.name, std::span(tensors).subspan(shard.first, shard.count));
    if (!writer) return writer.error();
    for (std::size_t i = shard.first; i < shard.first + shard.count; ++i) {
      const named_tensor& tensor = weights.tensors()[i];
      auto streamed = stream_rows(
          job.device, tensor.rows, tensor.columns, job.options.format, tensor.name,
          [&](std::int64_t row, float* out) { weights.file_row(tensor, row, out); },
          [&](std::span<const std::byte> bytes) { return writer->write(bytes); });
      if (!streamed) return streamed;
      job.progress(0.5 + 0.5 * static_cast<double>(++done) / static_cast<double>(tensors.size()));
    }
    if (auto finished = writer->finish(); !finished) return finished;
  }
  if (shards.size() == 1) return {};
  return folder.write("model.safetensors.index.json", formats::index_json(tensors, shards));
}

result<void> write_gguf_small_files(const export_job& job, const fs::path& gguf,
                                    const durable_folder& folder) {
  const auto file = formats::gguf_file::open(gguf);
  if (!file) return file.error();
  const auto config = model::hf_config_from_gguf(*file, dtype_of(job.options.format));
  if (!config) return config.error();
  if (auto written = folder.write("config.json", config->to_json()); !written) return written;
  const auto generation = model::hf_generation_config(job.base.config());
  if (auto written = folder.write("generation_config.json", generation.to_json()); !written)
    return written;
  if (!job.base.tokenizer_path()) return {};
  const auto files = text::tokenizer_files_from_gguf(*file, job.base.config().context_length);
  if (!files) return files.error();
  if (auto written = folder.write("tokenizer.json", files->tokenizer_json); !written)
    return written;
  return folder.write("tokenizer_config.json", files->tokenizer_config_json);
}

result<void> copy_small_files(const export_job& job, const durable_folder& folder) {
  const auto original = model::read_text(job.base_path / "config.json", most_small_bytes);
  if (!original) return original.error();
  const auto config = model::hf_config_from_json(*original, dtype_of(job.options.format));
  if (!config) return config.error();
  if (auto written = folder.write("config.json", config->to_json()); !written) return written;
  for (const char* name : small_files) {
    std::error_code code;
    if (!fs::exists(job.base_path / name, code)) continue;
    const auto contents = model::read_text(job.base_path / name, most_small_bytes);
    if (!contents) return contents.error();
    if (auto written = folder.write(name, *contents); !written) return written;
  }
  return {};
}

value adapter_config(const export_job& job, const model::adapter_layout& layout) {
  value::array targets;
  for (const auto& module : layout.modules) {
    value target = module.name.substr(module.name.find_last_of('.') + 1);
    if (std::find(targets.begin(), targets.end(), target) == targets.end())
      targets.push_back(std::move(target));
  }
  return value::object{{"peft_type", "LORA"},
                       {"task_type", "CAUSAL_LM"},
                       {"base_model_name_or_path", job.facts.model_path},
                       {"r", layout.rank},
                       {"lora_alpha", job.facts.settings.alpha},
                       {"lora_dropout", 0.0},
                       {"target_modules", std::move(targets)},
                       {"bias", "none"},
                       {"fan_in_fan_out", false},
                       {"inference_mode", true},
                       {"init_lora_weights", true},
                       {"modules_to_save", nullptr},
                       {"use_dora", false},
                       {"use_rslora", false}};
}

}  // namespace

result<std::uint64_t> bytes_of_model(const export_job& job) {
  auto config = job.base.config();
  const auto layout = parameter_layout::make(job.device, config);
  if (!layout) return layout.error();
  std::uint64_t bytes = small_files_bytes;
  for (const auto& tensor : layout->tensors)
    bytes += kernels::source_row_bytes(job.options.format, tensor.columns) *
             static_cast<std::uint64_t>(tensor.rows);
  return bytes;
}

result<void> write_model(const export_job& job, const durable_folder& folder) {
  // The small files first: what they cannot say is refused before the weights are read.
  const fs::path gguf = job.gguf();
  auto small =
      gguf.empty() ? copy_small_files(job, folder) : write_gguf_small_files(job, gguf, folder);
  if (!small) return small;
  const auto weights = trained_weights::read(job.device, job.base, job.checkpoint, job.facts,
                                             [&](double done) { job.progress(0.5 * done); });
  if (!weights) return weights.error();
  return write_tensors(job, **weights, folder);
}

result<std::uint64_t> bytes_of_adapter(const export_job& job) {
  std::uint64_t bytes = std::uint64_t{1} << 20;
  for (const auto& one : job.facts.layout) bytes += one.floats * sizeof(float);
  return bytes;
}

result<void> write_adapter(const export_job& job, const durable_folder& folder) {
  const auto adapter =
      trained_adapter::read(job.device, job.base.config(), job.checkpoint, job.facts);
  if (!adapter) return adapter.error();
  const auto& layout = (*adapter)->layout();
  std::vector<formats::tensor_description> tensors;
  const auto name_of = [](const model::adapter_module& module, const char* matrix) {
    return fmt::format("base_model.model.{}.{}.weight", module.name, matrix);
  };
  for (const auto& module : layout.modules) {
    tensors.push_back({name_of(module, "lora_A"), {module.rank, module.columns}});
    tensors.push_back({name_of(module, "lora_B"), {module.rows, module.rank}});
  }
  auto writer = formats::safetensors_writer::create(folder, "adapter_model.safetensors", tensors);
  if (!writer) return writer.error();
  double done = 0.0;
  for (const auto& module : layout.modules) {
    const auto numbers = (*adapter)->numbers(module);
    for (const auto* matrix : {&numbers.a, &numbers.b})
      if (auto written = writer->write(std::as_bytes(std::span(*matrix))); !written) return written;
    job.progress(++done / static_cast<double>(layout.modules.size()));
  }
  if (auto finished = writer->finish(); !finished) return finished;
  return folder.write("adapter_config.json", adapter_config(job, layout).to_json());
}

}  // namespace tandem::train
