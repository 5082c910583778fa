#include "runtime/transport/fabric.hpp"

#include "runtime/transport/fabric_core.hpp"

namespace tandem::transport {

result<std::unique_ptr<fabric>> fabric::open(fabric_options options, fabric_events& events) {
  auto core = fabric_core::open(std::move(options), events);
  if (!core) return core.error();
  return std::unique_ptr<fabric>(new fabric(*std::move(core)));
}

fabric::fabric(std::unique_ptr<fabric_core> core) : core_(std::move(core)) {}
fabric::~fabric() = default;

void fabric::close(std::string reason) { core_->close(std::move(reason)); }
const node_identity& fabric::self() const { return core_->self(); }
const fabric_options& fabric::options() const { return core_->options(); }
const std::shared_ptr<buffer_pool>& fabric::buffers() const { return core_->buffers(); }
fabric_counts fabric::counts() const { return core_->counts(); }

void fabric::dial(const address& where, std::function<void(result<peer_ptr>)> done) {
  core_->dial(where, std::move(done));
}
result<void> fabric::send(const peer_ptr& to, bytes body, std::vector<buffer_ptr> attachments,
                          urgency how) {
  return core_->send(to, std::move(body), std::move(attachments), how == urgency::must_go);
}
void fabric::drop(const peer_ptr& who, std::string reason) { core_->drop(who, std::move(reason)); }
result<void> fabric::check_size(std::size_t body_bytes,
                                std::span<const buffer_ptr> attachments) const {
  return core_->check_size(body_bytes, attachments);
}
void fabric::post(std::function<void()> call) { core_->post(std::move(call)); }

}  // namespace tandem::transport
