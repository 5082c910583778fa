// A tensor in a message: what it is, and a buffer that travels beside the message and is never
// copied through CAF. Inside a process the buffer is shared; its maker no longer writes to it.
#pragma once

#include "runtime/transport/buffer_pool.hpp"
#include "runtime/transport/frame.hpp"

#include <caf/all.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace tandem::actors {

enum class tensor_type : std::uint8_t { f32, f16, bf16, i32, i8, u8 };
std::size_t bytes_of(tensor_type type);  // an element

struct tensor_ref {
  tensor_type type = tensor_type::f32;
  std::vector<std::uint64_t> shape;
  transport::buffer_ptr data;                          // as many bytes as the shape says
  bool operator==(const tensor_ref&) const = default;  // the same buffer
};

// A buffer of the pool for this shape.
result<tensor_ref> make_tensor(transport::buffer_pool& pool, tensor_type type,
                               std::vector<std::uint64_t> shape);

// These find the buffer in the link's wire_context; anywhere else they fail.
caf::error inspect(caf::serializer& f, tensor_ref& x);
caf::error inspect(caf::deserializer& f, tensor_ref& x);
std::string to_string(const tensor_ref& x);

}  // namespace tandem::actors
