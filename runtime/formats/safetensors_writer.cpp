#include "runtime/formats/safetensors_writer.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstring>
#include <utility>

namespace tandem::formats {
namespace {

constexpr std::size_t alignment = 8;

std::string_view dtype_of(kernels::source_format format) {
  switch (format) {
    case kernels::source_format::f32:
      return "F32";
    case kernels::source_format::f16:
      return "F16";
    case kernels::source_format::bf16:
      return "BF16";
    default:
      ensure(false, "a format that safetensors files do not have");
  }
  return {};
}

std::string header_of(std::span<const tensor_description> tensors) {
  std::string header = R"({"__metadata__":{"format":"pt"})";
  std::uint64_t at = 0;
  for (const auto& tensor : tensors) {
    ensure(tensor.name.find_first_of("\"\\") == std::string::npos, "a tensor's name is plain");
    header +=
        fmt::format(R"(,"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", tensor.name,
                    dtype_of(tensor.format), fmt::join(tensor.shape, ","), at, at + tensor.bytes());
    at += tensor.bytes();
  }
  header += "}";
  header.resize((header.size() + alignment - 1) / alignment * alignment, ' ');
  return header;
}

}  // namespace

std::uint64_t tensor_description::bytes() const {
  std::uint64_t bytes = kernels::source_row_bytes(format, shape.empty() ? 1 : shape.back());
  for (std::size_t i = 0; i + 1 < shape.size(); ++i) bytes *= static_cast<std::uint64_t>(shape[i]);
  return bytes;
}

result<safetensors_writer> safetensors_writer::create(const durable_folder& folder,
                                                      std::string_view name,
                                                      std::span<const tensor_description> tensors) {
  auto file = folder.file(name);
  if (!file) return file.error();
  const std::string header = header_of(tensors);
  const std::uint64_t length = header.size();
  if (auto written = file->write(std::as_bytes(std::span(&length, 1))); !written)
    return written.error();
  if (auto written = file->write(header); !written) return written.error();
  std::uint64_t bytes = 0;
  for (const auto& tensor : tensors) bytes += tensor.bytes();
  return safetensors_writer(std::move(*file), bytes);
}

result<void> safetensors_writer::write(std::span<const std::byte> bytes) {
  ensure(bytes.size() <= bytes_left_, "more bytes than the header announced");
  bytes_left_ -= bytes.size();
  return file_.write(bytes);
}

result<void> safetensors_writer::finish() {
  ensure(bytes_left_ == 0, "fewer bytes than the header announced");
  return file_.finish();
}

std::vector<shard> shards_of(std::span<const tensor_description> tensors,
                             std::uint64_t most_bytes) {
  std::vector<shard> shards;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (shards.empty() || bytes + tensors[i].bytes() > most_bytes) {
      shards.push_back({{}, i, 0});
      bytes = 0;
    }
    bytes += tensors[i].bytes();
    ++shards.back().count;
  }
  for (std::size_t i = 0; i < shards.size(); ++i)
    shards[i].name = shards.size() == 1
                         ? "model.safetensors"
                         : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
  return shards;
}

std::string index_json(std::span<const tensor_description> tensors,
                       const std::vector<shard>& shards) {
  std::string map;
  std::uint64_t bytes = 0;
  for (const auto& shard : shards) {
    for (const auto& tensor : tensors.subspan(shard.first, shard.count)) {
      map += fmt::format("{}    \"{}\": \"{}\"", map.empty() ? "" : ",\n", tensor.name, shard.name);
      bytes += tensor.bytes();
    }
  }
  return fmt::format(
      "{{\n  \"metadata\": {{\"total_size\": {}}},\n  \"weight_map\": {{\n{}\n  }}\n}}\n", bytes,
      map);
}

}  // namespace tandem::formats
