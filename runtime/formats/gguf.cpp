#include "runtime/formats/gguf.hpp"

#include "runtime/formats/gguf_types.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

namespace tandem::formats {

namespace {

static_assert(std::endian::native == std::endian::little, "GGUF values are read as they lie");

// Bytes of one value; 0 for strings, arrays and unknown types.
constexpr std::array<std::size_t, type_count> fixed_bytes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
std::size_t bytes_of(std::uint32_t type) { return type < type_count ? fixed_bytes[type] : 0; }

constexpr std::uint64_t max_dimensions = 4;
constexpr std::uint64_t max_name_bytes = 64 * 1024;
constexpr std::uint64_t default_alignment = 32;
constexpr std::int64_t max_alignment = 1 << 20;

error broken(std::string detail) { return {errc::bad_file, "GGUF: " + std::move(detail), {}}; }

// Walks over bytes and never past them. The first read that does not fit stops it for good, so a
// caller may check once after several reads.
class cursor {
 public:
  explicit cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool good() const { return good_; }
  std::uint64_t offset() const { return offset_; }
  std::uint64_t left() const { return bytes_.size() - offset_; }

  template <class T>
  T take() {
    T value{};
    const auto raw = take_bytes(sizeof(T));
    if (good_) std::memcpy(&value, raw.data(), sizeof(T));
    return value;
  }
  std::span<const std::byte> take_bytes(std::uint64_t count) {
    if (!good_ || count > left()) {
      good_ = false;
      return {};
    }
    const auto taken = bytes_.subspan(offset_, count);
    offset_ += count;
    return taken;
  }
  std::string_view take_string() {
    const auto raw = take_bytes(take<std::uint64_t>());
    return {reinterpret_cast<const char*>(raw.data()), raw.size()};
  }
  error truncated(std::string_view what) const {
    return broken(fmt::format("{} at byte {} runs past the end of the file ({} bytes)", what,
                              offset_, bytes_.size()));
  }

 private:
  std::span<const std::byte> bytes_;
  std::uint64_t offset_ = 0;
  bool good_ = true;
};

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

std::optional<std::int64_t> integer_at(std::uint32_t type, const std::byte* at) {
  switch (type) {
    case type_uint8:
      return load<std::uint8_t>(at);
    case type_int8:
      return load<std::int8_t>(at);
    case type_uint16:
      return load<std::uint16_t>(at);
    case type_int16:
      return load<std::int16_t>(at);
    case type_uint32:
      return load<std::uint32_t>(at);
    case type_int32:
      return load<std::int32_t>(at);
    case type_int64:
      return load<std::int64_t>(at);
    case type_uint64: {
      const auto value = load<std::uint64_t>(at);
      if (value > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) return std::nullopt;
      return static_cast<std::int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> number_at(std::uint32_t type, const std::byte* at) {
  if (type == type_float32) return static_cast<double>(load<float>(at));
  if (type == type_float64) return load<double>(at);
  return std::nullopt;
}

template <class T, class Read>
std::optional<std::vector<T>> elements(std::uint32_t type, std::span<const std::byte> payload,
                                       Read read) {
  const std::size_t stride = bytes_of(type);
  if (stride == 0) return std::nullopt;  // strings
  std::vector<T> values;
  values.reserve(payload.size() / stride);
  for (std::size_t at = 0; at < payload.size(); at += stride) {
    const auto value = read(type, payload.data() + at);
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  return values;
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

const ggml_type* find_type(std::uint32_t number) {
  for (const auto& type : ggml_types)
    if (type.number == number) return &type;
  return nullptr;
}

// The size of a tensor's bytes, or why it has none.
result<std::uint64_t> tensor_bytes(const gguf_tensor& tensor) {
  const std::int64_t columns = tensor.shape.back();
  if (columns > std::int64_t{1} << 40)
    return broken(fmt::format("tensor '{}' has {} columns", tensor.name, columns));
  std::uint64_t bytes = kernels::source_row_bytes(tensor.format, columns);
  if (bytes == 0)
    return broken(fmt::format("tensor '{}': {} columns are not whole blocks of its format",
                              tensor.name, columns));
  for (std::size_t i = 0; i + 1 < tensor.shape.size(); ++i)
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(tensor.shape[i]), &bytes))
      return broken(fmt::format("tensor '{}' is larger than any file", tensor.name));
  return bytes;
}

}  // namespace

// Fills a gguf_file from its bytes, from front to back.
class gguf_reader {
 public:
  gguf_reader(gguf_file& file, std::span<const std::byte> bytes) : file_(file), in_(bytes) {}

  result<void> read() {
    if (auto read = read_header(); !read) return read;
    for (std::uint64_t i = 0; i < entry_count_; ++i)
      if (auto read = read_entry(i); !read) return read;
    std::vector<std::uint64_t> offsets;
    for (std::uint64_t i = 0; i < tensor_count_; ++i)
      if (auto read = read_tensor(i, offsets); !read) return read;
    return place_tensors(offsets);
  }

 private:
  result<void> read_header();
  result<void> read_entry(std::uint64_t index);
  result<gguf_file::entry> read_value(std::string_view key);
  result<void> skip_array(std::string_view key, gguf_file::entry& entry);
  result<void> read_tensor(std::uint64_t index, std::vector<std::uint64_t>& offsets);
  result<void> place_tensors(const std::vector<std::uint64_t>& offsets);

  gguf_file& file_;
  cursor in_;
  std::uint64_t entry_count_ = 0;
  std::uint64_t tensor_count_ = 0;
};

result<void> gguf_reader::read_header() {
  const auto magic = in_.take_bytes(4);
  if (!in_.good() || std::memcmp(magic.data(), "GGUF", 4) != 0)
    return broken("the file does not begin with 'GGUF'; is it another format, or cut short?");
  const auto version = in_.take<std::uint32_t>();
  if (in_.good() && version != 0 && (version & 0xffffU) == 0)
    return error{
        errc::unsupported, "GGUF: the file is big-endian; convert it to little-endian", {}};
  if (in_.good() && version != 2 && version != 3)
    return error{
        errc::unsupported, fmt::format("GGUF: version {} is not known (2 and 3 are)", version), {}};
  tensor_count_ = in_.take<std::uint64_t>();
  entry_count_ = in_.take<std::uint64_t>();
  if (!in_.good()) return in_.truncated("the header");
  // An entry takes 13 bytes at least, a tensor 32: counts beyond that would only cost time.
  if (entry_count_ > in_.left() / 13 || tensor_count_ > in_.left() / 32)
    return broken(fmt::format("{} metadata entries and {} tensors cannot stand in {} bytes",
                              entry_count_, tensor_count_, in_.left()));
  return {};
}

result<void> gguf_reader::read_entry(std::uint64_t index) {
  const std::string_view key = in_.take_string();
  if (!in_.good()) return in_.truncated(fmt::format("metadata entry {}", index));
  if (key.empty() || key.size() > max_name_bytes)
    return broken(fmt::format("the key of metadata entry {} has {} bytes", index, key.size()));
  auto entry = read_value(key);
  if (!entry) return entry.error();
  if (!file_.entries_.emplace(std::string(key), *entry).second)
    return broken(fmt::format("metadata key '{}' stands there twice", key));
  return {};
}

result<gguf_file::entry> gguf_reader::read_value(std::string_view key) {
  gguf_file::entry entry;
  entry.type = in_.take<std::uint32_t>();
  if (in_.good() && entry.type >= type_count)
    return broken(fmt::format("metadata '{}' has the unknown type {}", key, entry.type));
  if (entry.type == type_array) {
    if (auto skipped = skip_array(key, entry); !skipped) return skipped.error();
  } else if (entry.type == type_string) {
    const auto text = in_.take_string();
    entry.payload = std::as_bytes(std::span(text));
  } else {
    entry.payload = in_.take_bytes(bytes_of(entry.type));
  }
  if (!in_.good()) return in_.truncated(fmt::format("metadata '{}'", key));
  if (entry.type == type_bool && std::to_integer<unsigned>(entry.payload[0]) > 1)
    return broken(fmt::format("metadata '{}' is neither true nor false", key));
  return entry;
}

result<void> gguf_reader::skip_array(std::string_view key, gguf_file::entry& entry) {
  entry.element_type = in_.take<std::uint32_t>();
  entry.count = in_.take<std::uint64_t>();
  if (!in_.good()) return in_.truncated(fmt::format("metadata '{}'", key));
  if (entry.element_type == type_array)
    return error{
        errc::unsupported, fmt::format("GGUF: metadata '{}' is an array of arrays", key), {}};
  if (entry.element_type >= type_count)
    return broken(
        fmt::format("metadata '{}' has the unknown element type {}", key, entry.element_type));
  const bool strings = entry.element_type == type_string;
  const std::uint64_t least = strings ? sizeof(std::uint64_t) : bytes_of(entry.element_type);
  if (entry.count > in_.left() / least)
    return broken(fmt::format("metadata '{}' says {} elements, {} bytes are left", key, entry.count,
                              in_.left()));
  if (!strings) {
    entry.payload = in_.take_bytes(entry.count * least);
    return {};
  }
  cursor walk = in_;
  for (std::uint64_t i = 0; i < entry.count; ++i) {
    walk.take_string();
    if (!walk.good()) return walk.truncated(fmt::format("metadata '{}', element {}", key, i));
  }
  entry.payload = in_.take_bytes(walk.offset() - in_.offset());
  return {};
}

result<void> gguf_reader::read_tensor(std::uint64_t index, std::vector<std::uint64_t>& offsets) {
  gguf_tensor tensor;
  tensor.name = in_.take_string();
  const auto dimensions = in_.take<std::uint32_t>();
  if (!in_.good()) return in_.truncated(fmt::format("the description of tensor {}", index));
  if (tensor.name.empty() || tensor.name.size() > max_name_bytes)
    return broken(fmt::format("the name of tensor {} has {} bytes", index, tensor.name.size()));
  if (dimensions == 0 || dimensions > max_dimensions)
    return broken(fmt::format("tensor '{}' has {} dimensions (1 to {} are possible)", tensor.name,
                              dimensions, max_dimensions));
  tensor.shape.resize(dimensions);
  for (std::uint32_t d = dimensions; d-- > 0;) tensor.shape[d] = in_.take<std::int64_t>();
  const auto number = in_.take<std::uint32_t>();
  const auto offset = in_.take<std::uint64_t>();
  if (!in_.good()) return in_.truncated(fmt::format("the description of tensor '{}'", tensor.name));
  for (const std::int64_t size : tensor.shape)
    if (size <= 0)
      return broken(fmt::format("tensor '{}' has a dimension of {}", tensor.name, size));

  const auto* type = find_type(number);
  if (type == nullptr || !type->supported)
    return error{errc::unsupported,
                 fmt::format("GGUF: tensor '{}' is stored as {}; use a file in F32, F16, BF16, "
                             "Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K",
                             tensor.name,
                             type != nullptr ? std::string(type->name)
                                             : fmt::format("ggml type {}", number)),
                 {}};
  tensor.format = type->format;
  if (!file_.tensor_index_.emplace(tensor.name, file_.tensors_.size()).second)
    return broken(fmt::format("tensor '{}' stands there twice", tensor.name));
  file_.tensors_.push_back(std::move(tensor));
  offsets.push_back(offset);
  return {};
}

// Tensor bytes begin at the first multiple of the alignment after the descriptions; offsets count
// from there.
result<void> gguf_reader::place_tensors(const std::vector<std::uint64_t>& offsets) {
  std::uint64_t alignment = default_alignment;
  if (file_.has("general.alignment")) {
    const auto given = file_.integer("general.alignment").value_or(0);
    if (given <= 0 || given > max_alignment ||
        !std::has_single_bit(static_cast<std::uint64_t>(given)))
      return broken(fmt::format("general.alignment is {}, not a power of two up to {}", given,
                                max_alignment));
    alignment = static_cast<std::uint64_t>(given);
  }
  const std::uint64_t start = (in_.offset() + alignment - 1) / alignment * alignment;
  const std::uint64_t room = start < file_.bytes_.size() ? file_.bytes_.size() - start : 0;
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    gguf_tensor& tensor = file_.tensors_[i];
    const auto size = tensor_bytes(tensor);
    if (!size) return size.error();
    if (offsets[i] % alignment != 0)
      return broken(fmt::format("tensor '{}' begins at {}, not a multiple of {}", tensor.name,
                                offsets[i], alignment));
    if (offsets[i] > room || *size > room - offsets[i])
      return broken(
          fmt::format("tensor '{}' wants {} bytes at {}, the file holds {} bytes of "
                      "tensors: it is cut short or broken; get it again",
                      tensor.name, *size, offsets[i], room));
    tensor.bytes = file_.bytes_.subspan(start + offsets[i], *size);
  }
  return {};
}

result<gguf_file> gguf_file::open(const std::filesystem::path& path) {
  auto map = mapped_file::open(path);
  if (!map) return map.error();
  auto file = parse(map->bytes());
  if (!file) {
    error why = file.error();
    why.detail = path.string() + ": " + why.detail;
    return why;
  }
  file->map_ = std::move(*map);
  return file;
}

result<gguf_file> gguf_file::parse(std::span<const std::byte> bytes) {
  gguf_file file;
  file.bytes_ = bytes;
  if (auto read = gguf_reader{file, bytes}.read(); !read) return read.error();
  return file;
}

const gguf_file::entry* gguf_file::find(std::string_view key) const {
  const auto found = entries_.find(std::string(key));
  return found == entries_.end() ? nullptr : &found->second;
}

std::vector<gguf_entry> gguf_file::entries() const {
  std::vector<gguf_entry> all;
  for (const auto& [key, one] : entries_)
    all.push_back({key, one.type, one.element_type, one.count, one.payload});
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.key < b.key; });
  return all;
}

bool gguf_file::has(std::string_view key) const { return find(key) != nullptr; }

std::optional<std::int64_t> gguf_file::integer(std::string_view key) const {
  const entry* found = find(key);
  if (found == nullptr || found->payload.empty()) return std::nullopt;
  return integer_at(found->type, found->payload.data());
}

std::optional<double> gguf_file::number(std::string_view key) const {
  const entry* found = find(key);
  if (found == nullptr || found->payload.empty()) return std::nullopt;
  return number_at(found->type, found->payload.data());
}

std::optional<bool> gguf_file::boolean(std::string_view key) const {
  const entry* found = find(key);
  if (found == nullptr || found->type != type_bool) return std::nullopt;
  return found->payload[0] != std::byte{0};
}

std::optional<std::string_view> gguf_file::string(std::string_view key) const {
  const entry* found = find(key);
  if (found == nullptr || found->type != type_string) return std::nullopt;
  return as_text(found->payload);
}

std::optional<std::vector<std::string_view>> gguf_file::strings(std::string_view key) const {
  const entry* found = find(key);
  if (found == nullptr || found->type != type_array || found->element_type != type_string)
    return std::nullopt;
  std::vector<std::string_view> texts;
  texts.reserve(found->count);
  cursor in{found->payload};
  for (std::uint64_t i = 0; i < found->count; ++i) texts.push_back(in.take_string());
  ensure(in.good(), "an array of strings was checked when the file was opened");
  return texts;
}

std::optional<std::vector<double>> gguf_file::numbers(std::string_view key) const {
  const entry* found = find(key);
  if (found == nullptr || found->type != type_array) return std::nullopt;
  return elements<double>(found->element_type, found->payload, number_at);
}

std::optional<std::vector<std::int64_t>> gguf_file::integers(std::string_view key) const {
  const entry* found = find(key);
  if (found == nullptr || found->type != type_array) return std::nullopt;
  return elements<std::int64_t>(found->element_type, found->payload, integer_at);
}

const gguf_tensor* gguf_file::tensor(std::string_view name) const {
  const auto found = tensor_index_.find(std::string(name));
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace tandem::formats
