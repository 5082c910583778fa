#include "runtime/formats/safetensors.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <unordered_set>
#include <utility>

namespace tandem::formats {

namespace {

// The reference implementation's own bound on headers (huggingface/safetensors, tensor.rs).
constexpr std::uint64_t max_header_bytes = 100'000'000;
constexpr std::uint64_t max_index_bytes = 100'000'000;
constexpr std::size_t max_dimensions = 8;
constexpr std::uint64_t max_name_bytes = 64 * 1024;
constexpr std::size_t max_shards = 4096;

error broken(std::string detail) {
  return {errc::bad_file, "safetensors: " + std::move(detail), {}};
}

error in_file(const std::filesystem::path& path, error why) {
  why.detail = path.string() + ": " + why.detail;
  return why;
}

std::optional<kernels::source_format> format_of(std::string_view dtype) {
  if (dtype == "F32") return kernels::source_format::f32;
  if (dtype == "F16") return kernels::source_format::f16;
  if (dtype == "BF16") return kernels::source_format::bf16;
  if (dtype == "F8_E4M3") return kernels::source_format::e4m3;
  return std::nullopt;
}

result<std::vector<std::int64_t>> read_shape(std::string_view name, simdjson::dom::element entry) {
  simdjson::dom::array sizes;
  if (entry["shape"].get(sizes) != simdjson::SUCCESS)
    return broken(fmt::format("tensor '{}' has no shape", name));
  if (sizes.size() > max_dimensions)
    return broken(fmt::format("tensor '{}' has {} dimensions", name, sizes.size()));
  std::vector<std::int64_t> shape;
  for (const auto size : sizes) {
    std::int64_t value = 0;
    if (size.get(value) != simdjson::SUCCESS || value < 0)
      return broken(fmt::format("tensor '{}' has a size that is no count", name));
    shape.push_back(value);
  }
  return shape;
}

result<std::uint64_t> bytes_of(const safetensor& tensor) {
  std::uint64_t bytes = kernels::source_row_bytes(tensor.format, 1);
  for (const std::int64_t size : tensor.shape)
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(size), &bytes))
      return broken(fmt::format("tensor '{}' is larger than any file", tensor.name));
  return bytes;
}

result<safetensor> read_tensor(std::string_view name, simdjson::dom::element entry,
                               std::span<const std::byte> data) {
  safetensor tensor;
  tensor.name = name;
  std::string_view dtype;
  if (entry["dtype"].get(dtype) != simdjson::SUCCESS)
    return broken(fmt::format("tensor '{}' has no dtype", name));
  const auto format = format_of(dtype);
  if (!format)
    return error{errc::unsupported,
                 fmt::format("safetensors: tensor '{}' is stored as {}; F32, F16, BF16 and F8_E4M3 "
                             "can be read",
                             name, dtype),
                 {}};
  tensor.format = *format;
  auto shape = read_shape(name, entry);
  if (!shape) return shape.error();
  tensor.shape = std::move(*shape);

  simdjson::dom::array offsets;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  if (entry["data_offsets"].get(offsets) != simdjson::SUCCESS || offsets.size() != 2 ||
      offsets.at(0).get(begin) != simdjson::SUCCESS || offsets.at(1).get(end) != simdjson::SUCCESS)
    return broken(fmt::format("tensor '{}' has no pair of data_offsets", name));
  if (begin > end || end > data.size())
    return broken(
        fmt::format("tensor '{}' lies at {} to {}, the file holds {} bytes of tensors: "
                    "it is cut short or broken; get it again",
                    name, begin, end, data.size()));
  const auto wanted = bytes_of(tensor);
  if (!wanted) return wanted.error();
  if (*wanted != end - begin)
    return broken(fmt::format("tensor '{}' wants {} bytes by its shape and has {}", name, *wanted,
                              end - begin));
  tensor.bytes = data.subspan(begin, *wanted);
  return tensor;
}

// weight_map of an index: tensor name to shard.
result<std::map<std::string, std::string>> read_index(const std::filesystem::path& path) {
  auto map = mapped_file::open(path);
  if (!map) return map.error();
  if (map->bytes().size() > max_index_bytes)
    return broken(fmt::format("{}: the index has {} bytes", path.string(), map->bytes().size()));
  simdjson::dom::parser parser;
  const simdjson::padded_string text(reinterpret_cast<const char*>(map->bytes().data()),
                                     map->bytes().size());
  simdjson::dom::element root;
  if (const auto status = parser.parse(text).get(root); status != simdjson::SUCCESS)
    return broken(fmt::format("{}: {}", path.string(), simdjson::error_message(status)));
  simdjson::dom::object entries;
  if (root["weight_map"].get(entries) != simdjson::SUCCESS)
    return broken(fmt::format("{}: no weight_map", path.string()));
  std::map<std::string, std::string> shards;
  for (const auto [name, value] : entries) {
    std::string_view shard;
    if (value.get(shard) != simdjson::SUCCESS)
      return broken(fmt::format("{}: the shard of '{}' is no text", path.string(), name));
    // A shard is a file of this folder: an index from elsewhere must not open others.
    if (shard.empty() || shard.find_first_of("/\\") != std::string_view::npos || shard[0] == '.' ||
        shard.find('\0') != std::string_view::npos)
      return broken(fmt::format("{}: '{}' is no file name", path.string(), shard));
    if (!shards.emplace(name, shard).second)
      return broken(fmt::format("{}: '{}' stands there twice", path.string(), name));
  }
  if (shards.empty()) return broken(fmt::format("{}: weight_map is empty", path.string()));
  return shards;
}

}  // namespace

result<safetensors_file> safetensors_file::open(const std::filesystem::path& path) {
  auto map = mapped_file::open(path);
  if (!map) return map.error();
  auto file = parse(map->bytes());
  if (!file) return in_file(path, file.error());
  file->map_ = std::move(*map);
  return file;
}

result<safetensors_file> safetensors_file::parse(std::span<const std::byte> bytes) {
  std::uint64_t header_bytes = 0;
  if (bytes.size() < sizeof header_bytes)
    return broken(fmt::format("the file ends after {} bytes, before its header", bytes.size()));
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  const auto rest = bytes.subspan(sizeof header_bytes);
  if (header_bytes > max_header_bytes || header_bytes > rest.size())
    return broken(
        fmt::format("the header says {} bytes, the file has {}: it is another format, "
                    "cut short or broken",
                    header_bytes, bytes.size()));

  simdjson::dom::parser parser;
  const simdjson::padded_string text(reinterpret_cast<const char*>(rest.data()), header_bytes);
  simdjson::dom::object entries;
  if (const auto status = parser.parse(text).get(entries); status != simdjson::SUCCESS)
    return broken(fmt::format("the header is no JSON object: {}", simdjson::error_message(status)));

  safetensors_file file;
  file.bytes_ = bytes;
  std::unordered_set<std::string_view> names;
  for (const auto [name, entry] : entries) {
    if (name == "__metadata__") continue;
    if (name.empty() || name.size() > max_name_bytes)
      return broken(fmt::format("a tensor's name has {} bytes", name.size()));
    if (!names.insert(name).second)
      return broken(fmt::format("tensor '{}' stands there twice", name));
    auto tensor = read_tensor(name, entry, rest.subspan(header_bytes));
    if (!tensor) return tensor.error();
    file.tensors_.push_back(std::move(*tensor));
  }
  return file;
}

result<std::vector<safetensors_file>> open_safetensors_folder(const std::filesystem::path& folder) {
  const auto index_path = folder / "model.safetensors.index.json";
  std::vector<safetensors_file> files;
  std::error_code ignored;
  if (!std::filesystem::exists(index_path, ignored)) {
    auto file = safetensors_file::open(folder / "model.safetensors");
    if (!file) return file.error();
    files.push_back(std::move(*file));
    return files;
  }

  auto index = read_index(index_path);
  if (!index) return index.error();
  std::set<std::string> shards;
  for (const auto& [name, shard] : *index) shards.insert(shard);
  if (shards.size() > max_shards)
    return broken(fmt::format("{}: {} shards", index_path.string(), shards.size()));
  for (const auto& shard : shards) {
    auto file = safetensors_file::open(folder / shard);
    if (!file) return file.error();
    for (const auto& tensor : file->tensors()) {
      const auto entry = index->find(tensor.name);
      if (entry == index->end() || entry->second != shard)
        return broken(fmt::format("{}: tensor '{}' lies in {}, the index says {}",
                                  index_path.string(), tensor.name, shard,
                                  entry == index->end() ? "nothing" : entry->second));
      index->erase(entry);
    }
    files.push_back(std::move(*file));
  }
  if (!index->empty())
    return broken(fmt::format("{}: tensor '{}' is not in {}", index_path.string(),
                              index->begin()->first, index->begin()->second));
  return files;
}

}  // namespace tandem::formats
