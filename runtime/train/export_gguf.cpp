// The whole model as one GGUF file: tensors under GGUF's names and in its order of rows, metadata
// copied from the base's file or written from its config.json and tokenizer.json.
#include "runtime/formats/gguf_writer.hpp"
#include "runtime/formats/number_format.hpp"
#include "runtime/model/gguf_metadata.hpp"
#include "runtime/model/hf_config.hpp"
#include "runtime/model/load_plan.hpp"
#include "runtime/model/model_sources.hpp"
#include "runtime/text/tokenizer_to_gguf.hpp"
#include "runtime/train/export_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace tandem::train {
namespace {

namespace fs = std::filesystem;
using kernels::source_format;

constexpr std::uint64_t most_config_bytes = std::uint64_t{256} << 20;

// One tensor of the file, made of one or, for experts, of several tensors of ours.
struct gguf_part {
  std::string name;
  std::vector<std::int64_t> shape;
  source_format format = source_format::f32;
  std::vector<const named_tensor*> parts;
  int interleaved_heads = 0;  // not 0: the halves of each of so many heads are interleaved
};

// llama.general.file_type of most tensors, as ggml's enum llama_ftype numbers it.
std::uint32_t file_type_of(source_format format) {
  switch (format) {
    case source_format::f16:
      return 1;
    case source_format::q8_0:
      return 7;
    case source_format::bf16:
      return 32;
    default:
      return 0;
  }
}

class gguf_plan {
 public:
  gguf_plan(const model::model_config& config, std::string_view architecture,
            const std::vector<named_tensor>& tensors, source_format format)
      : config_(config),
        ours_(model::hugging_face_names(config)),
        theirs_(model::gguf_names(config, architecture)),
        format_(format) {
    for (const auto& tensor : tensors) by_name_.emplace(tensor.name, &tensor);
  }

  std::vector<gguf_part> parts() {
    add(ours_.embedding, theirs_.embedding);
    for (std::size_t i = 0; i < config_.layers.size(); ++i) add_layer(i);
    add(ours_.final_norm, theirs_.final_norm);
    add(ours_.head, theirs_.head);
    ensure(used_ == by_name_.size(), "every tensor has its place in the file");
    return std::move(parts_);
  }

 private:
  // Whatever this model does not have is passed over.
  void add(std::string_view ours, std::string_view theirs, int interleaved_heads = 0) {
    const auto found = by_name_.find(our_prefix_ + std::string(ours));
    if (ours.empty() || found == by_name_.end()) return;
    const named_tensor& tensor = *found->second;
    const bool matrix = tensor.packed_rows > 0;
    parts_.push_back({their_prefix_ + std::string(theirs),
                      tensor.shape,
                      matrix ? format_ : source_format::f32,
                      {&tensor},
                      interleaved_heads});
    ++used_;
  }

  void add_linear(std::string_view ours, std::string_view theirs, int interleaved_heads = 0) {
    for (const char* what : {".weight", ".bias"})
      add(std::string(ours) + what, std::string(theirs) + what, interleaved_heads);
  }

  void add_layer(std::size_t index) {
    our_prefix_ = fmt::format(fmt::runtime(ours_.layer), index);
    their_prefix_ = fmt::format(fmt::runtime(theirs_.layer), index);
    const bool interleaved = theirs_.interleaved_heads;
    add(ours_.attention_norm, theirs_.attention_norm);
    add_linear(ours_.query, theirs_.query, interleaved ? config_.query_heads : 0);
    add_linear(ours_.key, theirs_.key, interleaved ? config_.key_heads : 0);
    add_linear(ours_.value, theirs_.value);
    if (!ours_.fused_qkv.empty()) add_linear(ours_.fused_qkv, theirs_.fused_qkv);
    add_linear(ours_.output, theirs_.output);
    add(ours_.query_norm, theirs_.query_norm);
    add(ours_.key_norm, theirs_.key_norm);
    if (config_.post_norms) add(ours_.post_attention_norm, theirs_.post_attention_norm);
    add(ours_.feed_forward_norm, theirs_.feed_forward_norm);
    if (config_.post_norms) add(ours_.post_feed_forward_norm, theirs_.post_feed_forward_norm);
    if (config_.layers[index].moe) {
      add_router();
      add_experts(ours_.expert_gate, theirs_.expert_gate);
      add_experts(ours_.expert_up, theirs_.expert_up);
      add_experts(ours_.expert_down, theirs_.expert_down);
    } else {
      add_linear(ours_.gate, theirs_.gate);
      if (ours_.fused_gate_up.empty()) add_linear(ours_.up, theirs_.up);
      if (!ours_.fused_gate_up.empty()) add_linear(ours_.fused_gate_up, theirs_.fused_gate_up);
      add_linear(ours_.down, theirs_.down);
    }
    our_prefix_.clear();
    their_prefix_.clear();
  }

  void add_router() {
    add(std::string(ours_.router) + ".weight", std::string(theirs_.router) + ".weight");
    // Its few numbers choose whole experts: never rounded.
    if (!parts_.empty()) parts_.back().format = source_format::f32;
  }

  void add_experts(std::string_view ours, std::string_view theirs) {
    gguf_part all{their_prefix_ + std::string(theirs) + ".weight", {}, format_, {}, 0};
    for (int e = 0; e < config_.experts; ++e) {
      const auto found =
          by_name_.find(our_prefix_ + fmt::format(fmt::runtime(ours), e) + ".weight");
      ensure(found != by_name_.end(), "an expert of a layer of experts");
      all.parts.push_back(found->second);
      ++used_;
    }
    all.shape = all.parts.front()->shape;
    all.shape.insert(all.shape.begin(), config_.experts);
    parts_.push_back(std::move(all));
  }

  const model::model_config& config_;
  const model::tensor_names ours_;
  const model::tensor_names theirs_;
  const source_format format_;
  std::unordered_map<std::string, const named_tensor*> by_name_;
  std::string our_prefix_;
  std::string their_prefix_;
  std::vector<gguf_part> parts_;
  std::size_t used_ = 0;
};

// The row of ours that stands at `row` of a file whose heads' halves are interleaved.
std::int64_t interleaved_row(std::int64_t row, std::int64_t rows, int heads) {
  const std::int64_t size = rows / heads;
  const std::int64_t head = row / size;
  const std::int64_t at = row % size;
  return head * size + at % 2 * (size / 2) + at / 2;
}

std::uint64_t bytes_of(const gguf_part& part) {
  std::uint64_t bytes = 0;
  for (const auto* tensor : part.parts)
    bytes += kernels::source_row_bytes(part.format, tensor->columns) *
             static_cast<std::uint64_t>(tensor->rows);
  return bytes;
}

// Small tensors as they are: frequencies.
struct raw_part {
  std::string name;
  std::vector<std::int64_t> shape;
  std::uint32_t type = 0;
  std::vector<std::byte> bytes;
};

// general.* that says how a file is stored, and where its parts are.
bool of_the_file_itself(std::string_view key) {
  return key == "general.file_type" || key == "general.alignment" || key.starts_with("split.");
}

struct metadata {
  formats::gguf_writer writer;
  std::string architecture;
  std::vector<raw_part> tensors;
};

result<metadata> copied_metadata(const export_job& job, const fs::path& gguf) {
  const auto file = formats::gguf_file::open(gguf);
  if (!file) return file.error();
  metadata made;
  made.architecture = file->string("general.architecture").value_or("");
  made.writer.string("general.architecture", made.architecture);
  made.writer.integer("general.file_type", file_type_of(job.options.format));
  for (const auto& entry : file->entries())
    if (entry.key != "general.architecture" && !of_the_file_itself(entry.key))
      made.writer.copy(entry);
  for (const char* name :
       {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
    if (const auto* tensor = file->tensor(name))
      made.tensors.push_back({name,
                              tensor->shape,
                              formats::ggml_type_of(tensor->format),
                              {tensor->bytes.begin(), tensor->bytes.end()}});
  return made;
}

result<void> put_tokenizer(const export_job& job, formats::gguf_writer& writer) {
  if (!job.base.tokenizer_path()) return {};
  const auto json = model::read_text(job.base_path / "tokenizer.json", most_config_bytes);
  if (!json) return json.error();
  const auto config = model::read_text(job.base_path / "tokenizer_config.json", most_config_bytes);
  auto put = text::put_tokenizer(writer, *json, config ? std::string_view(*config) : "",
                                 job.base.config().vocabulary_size);
  if (!put) return put;
  if (const auto source = job.base.chat_template())
    writer.string("tokenizer.chat_template", *source);
  return {};
}

result<metadata> written_metadata(const export_job& job) {
  const auto json = model::read_text(job.base_path / "config.json", most_config_bytes);
  if (!json) return json.error();
  const auto ropes = model::ropes_from_json(*json);
  if (!ropes) return ropes.error();
  metadata made;
  made.architecture = model::gguf_architecture(job.base.config());
  made.writer.string("general.architecture", made.architecture);
  made.writer.string("general.name", job.facts.base_name);
  made.writer.integer("general.file_type", file_type_of(job.options.format));
  made.writer.integer("general.quantization_version", 2);
  for (auto& tensor : model::put_metadata(made.writer, job.base.config(), *ropes)) {
    const auto bytes = std::as_bytes(std::span(tensor.numbers));
    made.tensors.push_back({tensor.name,
                            {static_cast<std::int64_t>(tensor.numbers.size())},
                            formats::ggml_type_of(source_format::f32),
                            {bytes.begin(), bytes.end()}});
  }
  if (auto put = put_tokenizer(job, made.writer); !put) return put.error();
  return made;
}

result<void> write_padding(durable_file& file, std::size_t count) {
  const std::vector<std::byte> zeros(count);
  return file.write(zeros);
}

// A vector is one row of ours; its numbers are permuted as a matrix's rows are.
void read_vector(const trained_weights& weights, const gguf_part& part, float* out) {
  const named_tensor& tensor = *part.parts.front();
  weights.row(tensor, 0, out);
  for (std::int64_t i = 0; i < tensor.columns; ++i) out[i] /= tensor.factor;
  if (part.interleaved_heads == 0) return;
  const std::vector<float> plain(out, out + tensor.columns);
  for (std::int64_t i = 0; i < tensor.columns; ++i)
    out[i] =
        plain[static_cast<std::size_t>(interleaved_row(i, tensor.columns, part.interleaved_heads))];
}

result<void> write_part(const export_job& job, const trained_weights& weights,
                        const gguf_part& part, durable_file& file) {
  for (const named_tensor* tensor : part.parts) {
    auto streamed = stream_rows(
        job.device, tensor->rows, tensor->columns, part.format, part.name,
        [&](std::int64_t row, float* out) {
          if (tensor->packed_rows == 0) return read_vector(weights, part, out);
          weights.row(*tensor,
                      part.interleaved_heads == 0
                          ? row
                          : interleaved_row(row, tensor->rows, part.interleaved_heads),
                      out);
        },
        [&](std::span<const std::byte> bytes) { return file.write(bytes); });
    if (!streamed) return streamed;
  }
  return {};
}

std::string file_name(const export_job& job) {
  std::string name = job.facts.base_name.empty() ? job.base.name() : job.facts.base_name;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '/' || c == ':' || c == '\\'; }, '-');
  std::string format(formats::name_of(job.options.format));
  std::transform(format.begin(), format.end(), format.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return fmt::format("{}-tuned.{}.gguf", name, format);
}

// What was written, read as any reader reads it.
result<void> check_written(const export_job& job, const fs::path& path) {
  const auto source = model::open_gguf_source(path);
  if (!source) return source.error();
  const auto& config = job.base.config();
  if (const auto what = model::difference_of(config, (*source)->config()); !what.empty())
    return error{errc::unsupported,
                 fmt::format("a GGUF file of a {} model cannot say {}; export a folder instead "
                             "(without --gguf)",
                             config.family, what),
                 {}};
  return {};
}

}  // namespace

result<void> write_gguf(const export_job& job, const durable_folder& folder) {
  const fs::path gguf = job.gguf();
  auto head = gguf.empty() ? written_metadata(job) : copied_metadata(job, gguf);
  if (!head) return head.error();
  const auto weights = trained_weights::read(job.device, job.base, job.checkpoint, job.facts,
                                             [&](double done) { job.progress(0.5 * done); });
  if (!weights) return weights.error();
  const auto parts =
      gguf_plan(job.base.config(), head->architecture, (*weights)->tensors(), job.options.format)
          .parts();
  for (const auto& raw : head->tensors)
    head->writer.describe(raw.name, raw.shape, raw.type, raw.bytes.size());
  for (const auto& part : parts)
    head->writer.describe(part.name, part.shape, formats::ggml_type_of(part.format),
                          bytes_of(part));

  const std::string name = file_name(job);
  auto file = folder.file(name);
  if (!file) return file.error();
  if (auto written = file->write(head->writer.header()); !written) return written;
  for (const auto& raw : head->tensors) {
    if (auto written = file->write(raw.bytes); !written) return written;
    if (auto written = write_padding(*file, head->writer.padding(raw.bytes.size())); !written)
      return written;
  }
  double done = 0.0;
  for (const auto& part : parts) {
    if (auto written = write_part(job, **weights, part, *file); !written) return written;
    if (auto written = write_padding(*file, head->writer.padding(bytes_of(part))); !written)
      return written;
    job.progress(0.5 + 0.5 * ++done / static_cast<double>(parts.size()));
  }
  if (auto finished = file->finish(); !finished) return finished;
  return check_written(job, folder.part() / name);
}

}  // namespace tandem::train
