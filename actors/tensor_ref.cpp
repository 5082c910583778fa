#include "actors/tensor_ref.hpp"

#include "actors/wire_context.hpp"

#include <fmt/format.h>

#include <optional>

namespace tandem::actors {

namespace {

constexpr std::size_t max_dimensions = 16;

// None: it does not fit into 64 bits.
std::optional<std::uint64_t> bytes_in(tensor_type type, const std::vector<std::uint64_t>& shape) {
  std::uint64_t bytes = bytes_of(type);
  for (const auto size : shape)
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  return bytes;
}

wire_context* wire_of(caf::execution_unit* context) { return dynamic_cast<wire_context*>(context); }

}  // namespace

std::size_t bytes_of(tensor_type type) {
  switch (type) {
    case tensor_type::f32:
    case tensor_type::i32:
      return 4;
    case tensor_type::f16:
    case tensor_type::bf16:
      return 2;
    case tensor_type::i8:
    case tensor_type::u8:
      return 1;
  }
  ensure(false, "a tensor of no known type");
  return 0;
}

result<tensor_ref> make_tensor(transport::buffer_pool& pool, tensor_type type,
                               std::vector<std::uint64_t> shape) {
  const auto bytes = bytes_in(type, shape);
  if (!bytes) return error{errc::too_large, "a tensor of more than 2^64 bytes", ""};
  auto data = pool.take(*bytes);
  if (!data) return data.error();
  return tensor_ref{type, std::move(shape), *std::move(data)};
}

caf::error inspect(caf::serializer& f, tensor_ref& x) {
  auto* wire = wire_of(f.context());
  if (wire == nullptr || !x.data)
    return caf::make_error(caf::sec::invalid_argument, "a tensor travels by the link only");
  if (bytes_in(x.type, x.shape) != x.data->size() || x.shape.size() > max_dimensions)
    return caf::make_error(caf::sec::invalid_argument, to_string(x));
  if (wire->attachments.size() == transport::max_attachments)
    return caf::make_error(caf::sec::invalid_argument, "more tensors than a message can carry");
  auto type = static_cast<std::uint8_t>(x.type);
  auto index = static_cast<std::uint8_t>(wire->attachments.size());
  wire->attachments.push_back(x.data);
  return f(type, index, x.shape);
}

caf::error inspect(caf::deserializer& f, tensor_ref& x) {
  auto* wire = wire_of(f.context());
  if (wire == nullptr)
    return caf::make_error(caf::sec::invalid_argument, "a tensor travels by the link only");
  std::uint8_t type = 0;
  std::uint8_t index = 0;
  if (auto fault = f(type, index, x.shape)) return fault;
  if (type > static_cast<std::uint8_t>(tensor_type::u8) || index >= wire->attachments.size() ||
      x.shape.size() > max_dimensions)
    return caf::make_error(caf::sec::invalid_argument, "a tensor that is not there");
  x.type = static_cast<tensor_type>(type);
  x.data = wire->attachments[index];
  if (bytes_in(x.type, x.shape) != x.data->size())
    return caf::make_error(caf::sec::invalid_argument, to_string(x));
  return caf::none;
}

std::string to_string(const tensor_ref& x) {
  return fmt::format("tensor of shape [{}] in {} bytes", fmt::join(x.shape, ", "),
                     x.data ? x.data->size() : 0);
}

}  // namespace tandem::actors
