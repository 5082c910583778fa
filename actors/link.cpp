#include "actors/link.hpp"

#include "actors/messages.hpp"
#include "runtime/log.hpp"

#include <fmt/format.h>

namespace tandem::actors {

namespace {

// Beside its bytes, of a frame in the backlog.
constexpr std::uint64_t waiting_frame_costs = 512;
constexpr auto must_go = transport::fabric::urgency::must_go;

}  // namespace

// --- life ---------------------------------------------------------------------------------------

result<void> load_link(caf::actor_system_config& config, transport::fabric_options options) {
  auto made = std::make_unique<link>();
  if (auto opened = made->open(std::move(options)); !opened) return opened.error();
  // A factory can be copied, the link cannot.
  auto held = std::make_shared<std::unique_ptr<link>>(std::move(made));
  config.module_factories.push_back([held](caf::actor_system& system) -> link* {
    ensure(*held != nullptr, "one configuration with a link makes one actor system");
    (*held)->attach(system);
    return held->release();
  });
  return {};
}

link& link_of(caf::actor_system& system) {
  ensure(system.has_network_manager(), "this actor system has no link");
  return static_cast<link&>(system.network_manager());
}

result<void> link::open(transport::fabric_options options) {
  auto opened = transport::fabric::open(std::move(options), *this);
  if (!opened) return opened.error();
  fabric_ = *std::move(opened);
  return {};
}

link::~link() {
  {
    const std::lock_guard lock(gate_);
    abandoned_ = true;
  }
  gate_moved_.notify_all();
  fabric_.reset();
}

void link::attach(caf::actor_system& system) {
  system_ = &system;
  proxies_ = std::make_unique<caf::proxy_registry>(system, *this);
}

// Before the first spawn: without it every actor would have the empty node.
void link::init(caf::actor_system_config&) { assign_node(*system_, to_node_id(self())); }

void link::start() {
  // On a thread of its own: names of hosts are looked up there, and that may take long.
  desk_ = system_->spawn<caf::hidden + caf::detached>(link_desk, this);
  {
    const std::lock_guard lock(gate_);
    attached_ = true;
  }
  gate_moved_.notify_all();
}

void link::stop() {
  fabric_->close();
  alive_.reset();  // its thread gave it away until now
  caf::anon_send_exit(desk_, caf::exit_reason::user_shutdown);
  desk_ = link_desk_actor();
  proxies_->clear();
  requests_.clear();
  const std::lock_guard lock(names_mutex_);
  names_.clear();
}

// A peer may come between the opening of the port and the start of the actor system. False: it
// never started.
bool link::wait_for_system() {
  std::unique_lock lock(gate_);
  gate_moved_.wait(lock, [this] { return attached_ || abandoned_; });
  return !abandoned_;
}

// --- nodes --------------------------------------------------------------------------------------

caf::strong_actor_ptr link::make_proxy(caf::node_id node, caf::actor_id id) {
  const auto identity = to_identity(node);
  node_ptr there = identity ? node_at(*identity) : nullptr;
  caf::actor_config config;
  auto made =
      caf::make_actor<link_proxy, caf::strong_actor_ptr>(id, node, system_, config, *this, there);
  link_header header{.op = link_op::monitor, .target = id};
  // The registry is locked: what has to end the proxy is left to the fabric's thread.
  if (!there || !send_frame(there, header, {}))
    fabric_->post([this, node, id] { proxies_->erase(node, id); });
  return made;
}

link::node_ptr link::node_at(const transport::node_identity& who) {
  const std::lock_guard lock(nodes_mutex_);
  if (const auto known = nodes_.find(who); known != nodes_.end()) return known->second;
  // A peer may name as many nodes as it likes.
  if (nodes_.size() >= static_cast<std::size_t>(fabric_->options().peers_max)) return nullptr;
  const auto node = std::make_shared<remote_node>(who);
  nodes_.emplace(who, node);
  fabric_->post([this, node] { dial(node); });
  return node;
}

void link::dial(const node_ptr& node) {
  {
    const std::lock_guard lock(node->mutex);
    if (node->now != remote_node::state::dialling) return;  // it was faster
  }
  fabric_->dial(node->identity.listen, [this, node](const result<transport::peer_ptr>& found) {
    if (!found) return leave(node, found.error().detail);
    if ((*found)->node() != node->identity)
      leave(node, fmt::format("{} is another process now", node->identity.listen.to_string()));
  });
}

void link::peer_up(const transport::peer_ptr& who) {
  if (wait_for_system()) join(who);
}

void link::join(const transport::peer_ptr& who) {
  node_ptr node;
  {
    const std::lock_guard lock(nodes_mutex_);
    auto& known = nodes_[who->node()];
    if (!known) known = std::make_shared<remote_node>(who->node());
    node = known;
  }
  by_peer_[who.get()] = node;
  {
    const std::lock_guard lock(node->mutex);
    if (node->now == remote_node::state::up) {
      node->others.push_back(who);
      return;
    }
    node->now = remote_node::state::up;
    node->peer = who;
    for (auto& one : std::exchange(node->backlog, {}))
      (void)fabric_->send(who, std::move(one.body), std::move(one.attachments), must_go);
  }
  log_debug("node {} is here", who->node().to_string());
  caf::anon_send(desk_, peer_joined{who->node().listen.to_string()});
}

void link::peer_gone(const transport::peer_ptr& who, const error& why) {
  const auto found = by_peer_.find(who.get());
  if (found == by_peer_.end()) return;
  const node_ptr node = found->second;
  by_peer_.erase(found);
  std::vector<transport::peer_ptr> rest;
  {
    const std::lock_guard lock(node->mutex);
    if (node->now == remote_node::state::gone) return;
    rest = node->others;
    rest.push_back(node->peer);
  }
  std::erase(rest, who);
  leave(node, why.detail);
  for (const auto& one : rest) {
    by_peer_.erase(one.get());
    // The same way round and newer: the other side has begun anew.
    if (one->dialled() == who->dialled() && !one->gone())
      join(one);
    else
      fabric_->drop(one, "its other connection is gone");
  }
}

// Its actors are down, for good: what comes back is met as a new node.
void link::leave(const node_ptr& node, const std::string& why) {
  bool was_up = false;
  std::vector<remote_node::waiting_frame> unsent;
  {
    const std::scoped_lock lock(nodes_mutex_, node->mutex);
    if (node->now == remote_node::state::gone) return;
    was_up = node->now == remote_node::state::up;
    node->now = remote_node::state::gone;
    node->peer.reset();
    node->others.clear();
    unsent.swap(node->backlog);
    if (const auto known = nodes_.find(node->identity);
        known != nodes_.end() && known->second == node)
      nodes_.erase(known);
  }
  proxies_->erase(node->id);
  for (const auto& one : requests_.take(*node)) bounce(one.sender.lock(), one.id, node_down());
  std::vector<std::uint64_t> unanswered;
  for (const auto& [query, what] : queries_)
    if (what.node == node) unanswered.push_back(query);
  for (const auto query : unanswered) {
    queries_.erase(query);
    answer(query, error{errc::unavailable, why, ""});
  }
  for (auto& [actor, watchers] : watched_) std::erase(watchers, node);
  if (was_up) caf::anon_send(desk_, actors::peer_gone{node->identity.listen.to_string(), why});
}

result<void> link::send_frame(const node_ptr& node, const link_header& header,
                              const transport::bytes& payload, transport::fabric::urgency how) {
  transport::bytes body;
  encode_link_header(header, body);
  body.insert(body.end(), payload.begin(), payload.end());
  const std::lock_guard lock(node->mutex);
  return queue(*node, std::move(body), {}, how);
}

// With the node's mutex held.
result<void> link::queue(remote_node& node, transport::bytes body,
                         std::vector<transport::buffer_ptr> attachments,
                         transport::fabric::urgency how) {
  switch (node.now) {
    case remote_node::state::gone:
      return error{errc::unavailable, fmt::format("{} is gone", node.identity.to_string()), ""};
    case remote_node::state::up:
      return fabric_->send(node.peer, std::move(body), std::move(attachments), how);
    case remote_node::state::dialling:
      break;
  }
  // Later nobody would hear of it.
  if (auto fits = fabric_->check_size(body.size(), attachments); !fits) return fits;
  std::uint64_t bytes = body.size() + waiting_frame_costs;
  for (const auto& one : attachments) bytes += one->size();
  if (node.backlog_bytes + bytes > fabric_->options().window_bytes)
    return error{
        errc::overloaded,
        fmt::format("{} bytes wait for {} already", node.backlog_bytes, node.identity.to_string()),
        ""};
  node.backlog_bytes += bytes;
  node.backlog.push_back({std::move(body), std::move(attachments), how});
  return {};
}

}  // namespace tandem::actors
