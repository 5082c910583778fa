#include "runtime/formats/gguf_writer.hpp"

#include "runtime/formats/gguf_types.hpp"

namespace tandem::formats {

void gguf_writer::put_string(std::vector<std::byte>& to, std::string_view text) {
  put(to, static_cast<std::uint64_t>(text.size()));
  const auto bytes = std::as_bytes(std::span(text));
  to.insert(to.end(), bytes.begin(), bytes.end());
}

void gguf_writer::entry(std::string_view key, std::uint32_t type) {
  put_string(entries_, key);
  put(entries_, type);
  ++entry_count_;
}

void gguf_writer::array(std::string_view key, std::uint32_t element_type, std::size_t count) {
  entry(key, type_array);
  put(entries_, element_type);
  put(entries_, static_cast<std::uint64_t>(count));
}

void gguf_writer::integer(std::string_view key, std::uint32_t value) {
  entry(key, type_uint32);
  put(entries_, value);
}

void gguf_writer::integer64(std::string_view key, std::uint64_t value) {
  entry(key, type_uint64);
  put(entries_, value);
}

void gguf_writer::number(std::string_view key, float value) {
  entry(key, type_float32);
  put(entries_, value);
}

void gguf_writer::boolean(std::string_view key, bool value) {
  entry(key, type_bool);
  put(entries_, static_cast<std::uint8_t>(value));
}

void gguf_writer::string(std::string_view key, std::string_view value) {
  entry(key, type_string);
  put_string(entries_, value);
}

void gguf_writer::strings(std::string_view key, const std::vector<std::string>& values) {
  array(key, type_string, values.size());
  for (const auto& value : values) put_string(entries_, value);
}

void gguf_writer::numbers(std::string_view key, const std::vector<float>& values) {
  array(key, type_float32, values.size());
  for (const float value : values) put(entries_, value);
}

void gguf_writer::integers(std::string_view key, const std::vector<std::int32_t>& values) {
  array(key, type_int32, values.size());
  for (const auto value : values) put(entries_, value);
}

void gguf_writer::raw(std::string_view key, std::uint32_t type, std::span<const std::byte> value) {
  entry(key, type);
  entries_.insert(entries_.end(), value.begin(), value.end());
}

void gguf_writer::copy(const gguf_entry& from) {
  if (from.type == type_array) {
    array(from.key, from.element_type, from.count);
  } else {
    entry(from.key, from.type);
    if (from.type == type_string) put(entries_, static_cast<std::uint64_t>(from.payload.size()));
  }
  entries_.insert(entries_.end(), from.payload.begin(), from.payload.end());
}

void gguf_writer::align(std::uint32_t alignment) {
  integer("general.alignment", alignment);
  alignment_ = alignment;
}

void gguf_writer::describe(std::string_view name, const std::vector<std::int64_t>& shape,
                           std::uint32_t ggml_type, std::uint64_t bytes) {
  put_string(descriptions_, name);
  put(descriptions_, static_cast<std::uint32_t>(shape.size()));
  for (auto size = shape.rbegin(); size != shape.rend(); ++size) put(descriptions_, *size);
  put(descriptions_, ggml_type);
  put(descriptions_, next_offset_);
  next_offset_ += bytes + padding(bytes);
  ++tensor_count_;
}

std::vector<std::byte> gguf_writer::header() const {
  std::vector<std::byte> bytes;
  for (const char c : std::string_view("GGUF")) bytes.push_back(static_cast<std::byte>(c));
  put(bytes, version_);
  put(bytes, tensor_count_);
  put(bytes, entry_count_);
  bytes.insert(bytes.end(), entries_.begin(), entries_.end());
  bytes.insert(bytes.end(), descriptions_.begin(), descriptions_.end());
  if (tensor_count_ > 0) bytes.resize(bytes.size() + padding(bytes.size()));
  return bytes;
}

std::uint32_t ggml_type_of(kernels::source_format format) {
  for (const auto& type : ggml_types)
    if (type.supported && type.format == format) return type.number;
  ensure(false, "every source format has a ggml type");
  return 0;
}

}  // namespace tandem::formats
