// Between CAF's messages and bytes: the context in which messages of a peer are written and read,
// with the buffers that travel beside them. What a peer sent cannot make us allocate more than it
// sent: every count is held against the bytes that are left.
#pragma once

#include "runtime/result.hpp"
#include "runtime/transport/buffer_pool.hpp"
#include "runtime/transport/wire_bytes.hpp"

#include <caf/all.hpp>

#include <span>
#include <vector>

namespace tandem::actors {

class wire_context final : public caf::scoped_execution_unit {
 public:
  wire_context(caf::actor_system& system, caf::proxy_registry& proxies)
      : caf::scoped_execution_unit(&system) {
    proxies_ = &proxies;
  }
  std::vector<transport::buffer_ptr> attachments;
};

// A message and the actors that wait behind its receiver for the answer.
struct wire_message {
  std::vector<caf::strong_actor_ptr> stages;
  caf::message content;
};

// Appends to `into`; the buffers go to the context. An error says which type cannot travel.
result<void> write_message(wire_context& context, wire_message& what, transport::bytes& into);
result<wire_message> read_message(wire_context& context, std::span<const char> from);
// Why an actor ended.
result<void> write_reason(wire_context& context, const caf::error& why, transport::bytes& into);
caf::error read_reason(wire_context& context, std::span<const char> from);

}  // namespace tandem::actors
