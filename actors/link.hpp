// Actors of different processes talk as those of one do: typed handles, requests, delegation,
// promises, monitors and links hold across nodes. A module of CAF over the runtime's fabric.
//
//   caf::actor_system_config config;
//   if (auto loaded = actors::load_link(config, options); !loaded) ...   // the port is taken, ...
//   caf::actor_system system(config);
//   auto& net = actors::link_of(system);
//   net.publish("gpu", device);                                          // here
//   net.resolve<gpu_actor>(self, "10.0.0.2:7000", "gpu", 2s)             // and there
//       .then([](const caf::strong_actor_ptr& found) { caf::actor_cast<gpu_actor>(found) ... });
//
// Every type in a message needs config.add_message_type<T>("name") on both nodes. Delivery is at
// most once: a request whose node dies comes back with request_receiver_down, even if that node had
// already passed it on; a request that was passed on to a third node which then dies needs a
// timeout of its own.
#pragma once

#include "actors/link_desk.hpp"
#include "actors/link_frame.hpp"
#include "actors/link_proxy.hpp"
#include "actors/open_requests.hpp"
#include "actors/wire_context.hpp"
#include "runtime/transport/fabric.hpp"

#include <caf/all.hpp>
#include <caf/proxy_registry.hpp>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace caf::net {

// CAF 0.17 keeps this place, and a friendship, for a network module it never shipped; only a friend
// can give an actor system the node id without which every remote handle looks local.
class middleman : public actor_system::module {
 protected:
  static void assign_node(actor_system& system, node_id id) { system.node_.swap(id); }
};

}  // namespace caf::net

namespace tandem::actors {

// Opens the fabric, so that a taken port is known now, and gives `config` the module.
result<void> load_link(caf::actor_system_config& config, transport::fabric_options options);

class link final : public caf::net::middleman,
                   public caf::proxy_registry::backend,
                   public transport::fabric_events {
 public:
  link() = default;
  ~link() override;
  result<void> open(transport::fabric_options options);
  void attach(caf::actor_system& system);

  const transport::node_identity& self() const { return fabric_->self(); }
  std::string address() const { return self().listen.to_string(); }
  transport::buffer_pool& buffers() { return *fabric_->buffers(); }
  transport::fabric& fabric() { return *fabric_; }
  // Takes resolve_actor and watch_peers.
  const link_desk_actor& desk() const { return desk_; }

  // Other nodes find it by this name until it ends or another takes the name.
  template <class Handle>
  void publish(const std::string& name, const Handle& handle) {
    publish_as(name, caf::actor_cast<caf::strong_actor_ptr>(handle),
               system_->message_types(handle));
  }
  void withdraw(const std::string& name);

  // The actor published there, if it answers all that Handle answers.
  template <class Handle, class Self>
  auto resolve(Self&& self, std::string address, std::string name,
               std::chrono::milliseconds within) {
    const auto types = system_->message_types<Handle>();
    return self->request(
        desk_, within,
        resolve_actor{std::move(address), std::move(name), {types.begin(), types.end()}});
  }

  // --- for the desk and the proxies ---
  void look_up(std::uint64_t query, resolve_actor wanted);
  void send(const link_proxy& to, caf::mailbox_element_ptr what);
  void announce_link(const std::shared_ptr<remote_node>& node, link_op what,
                     caf::abstract_actor* here, caf::actor_id there);

  // --- of CAF: a module, and who makes proxies ---
  void init(caf::actor_system_config&) override;
  void start() override;
  void stop() override;
  id_t id() const override { return caf::actor_system::module::network_manager; }
  void* subtype_ptr() override { return this; }
  caf::strong_actor_ptr make_proxy(caf::node_id node, caf::actor_id id) override;
  void set_last_hop(caf::node_id*) override {}

  // --- of the fabric, on its thread ---
  void peer_up(const transport::peer_ptr& who) override;
  void frame_arrived(const transport::peer_ptr& from, std::span<const char> body,
                     std::vector<transport::buffer_ptr> attachments) override;
  void peer_gone(const transport::peer_ptr& who, const error& why) override;

 private:
  using node_ptr = std::shared_ptr<remote_node>;
  static constexpr std::size_t max_open_requests = 1 << 17;
  struct published {
    caf::strong_actor_ptr actor;
    caf::actor_system::mpi types;
  };
  struct open_query {
    node_ptr node;
    resolve_actor wanted;
  };

  void publish_as(const std::string& name, caf::strong_actor_ptr actor,
                  caf::actor_system::mpi types);
  bool wait_for_system();

  // Nodes.
  node_ptr node_at(const transport::node_identity& who);
  void dial(const node_ptr& node);
  void join(const transport::peer_ptr& who);
  void leave(const node_ptr& node, const std::string& why);
  result<void> send_frame(const node_ptr& node, const link_header& header,
                          const transport::bytes& payload,
                          transport::fabric::urgency how = transport::fabric::urgency::must_go);
  result<void> queue(remote_node& node, transport::bytes body,
                     std::vector<transport::buffer_ptr> attachments,
                     transport::fabric::urgency how);

  // Messages.
  void send_now(const node_ptr& node, caf::actor_id to, caf::mailbox_element& what);
  static caf::error node_down() { return caf::make_error(caf::sec::request_receiver_down); }
  static void bounce(const caf::strong_actor_ptr& sender, caf::message_id id, caf::error why);
  void take_message(const node_ptr& from, const link_header& header, std::span<const char> payload,
                    std::vector<transport::buffer_ptr> attachments);
  void take_monitor(const node_ptr& from, caf::actor_id target);
  void watch_for(const node_ptr& who, const caf::strong_actor_ptr& actor);
  void tell_ended(const node_ptr& who, caf::actor_id target);
  void tell_down(const node_ptr& to, caf::actor_id ended, const caf::error& why);
  void take_down(const node_ptr& from, const link_header& header, std::span<const char> payload);
  void take_link(const node_ptr& from, const link_header& header);
  void log_once(const node_ptr& about, const std::string& what);

  // Names.
  void ask(const node_ptr& node, std::uint64_t query, resolve_actor wanted);
  void answer(std::uint64_t query, result<caf::strong_actor_ptr> found);
  result<published> find_published(const std::string& name);
  void take_resolve(const node_ptr& from, const link_header& header, std::span<const char> payload);
  void take_resolved(const node_ptr& from, const link_header& header,
                     std::span<const char> payload);

  std::mutex gate_;
  std::condition_variable gate_moved_;
  bool attached_ = false;
  bool abandoned_ = false;

  caf::actor_system* system_ = nullptr;
  std::unique_ptr<caf::proxy_registry> proxies_;
  link_desk_actor desk_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);  // what actors hold weakly

  std::mutex names_mutex_;
  std::map<std::string, published> names_;
  std::mutex nodes_mutex_;
  std::map<transport::node_identity, node_ptr> nodes_;  // dialling or up
  open_requests requests_{max_open_requests};

  // Of the fabric's thread.
  std::unordered_map<const transport::peer*, node_ptr> by_peer_;
  std::map<std::uint64_t, open_query> queries_;
  std::map<caf::actor_id, std::vector<node_ptr>> watched_;  // by whom
  std::set<std::string> logged_;

  std::unique_ptr<transport::fabric> fabric_;  // the last: it calls the rest
};

link& link_of(caf::actor_system& system);

}  // namespace tandem::actors
