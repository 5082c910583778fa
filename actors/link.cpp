#include "actors/link.hpp"

#include "actors/messages.hpp"
#include "runtime/log.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::actors {

namespace {

constexpr std::size_t max_logged = 256;
constexpr auto must_go = transport::fabric::urgency::must_go;

caf::error node_down() { return caf::make_error(caf::sec::request_receiver_down); }

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
  desk_ = system_->spawn<caf::hidden>(link_desk, this);
  {
    const std::lock_guard lock(gate_);
    attached_ = true;
  }
  gate_moved_.notify_all();
}

void link::stop() {
  alive_.reset();
  fabric_->close();
  caf::anon_send_exit(desk_, caf::exit_reason::user_shutdown);
  desk_ = link_desk_actor();
  proxies_->clear();
  {
    const std::lock_guard lock(requests_mutex_);
    requests_.clear();
  }
  const std::lock_guard lock(names_mutex_);
  names_.clear();
}

// A peer may come between the opening of the port and the start of the actor system.
void link::wait_for_system() {
  std::unique_lock lock(gate_);
  gate_moved_.wait(lock, [this] { return attached_ || abandoned_; });
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
  auto& node = nodes_[who];
  if (node) return node;
  node = std::make_shared<remote_node>(who);
  fabric_->post([this, node = node] { dial(node); });
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
  wait_for_system();
  if (system_ == nullptr) return;
  join(who);
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
  log_info("node {} is here", who->node().to_string());
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
  std::vector<open_request> lost;
  {
    const std::lock_guard lock(requests_mutex_);
    std::erase_if(requests_, [&](auto& one) {
      if (one.second.node != node) return false;
      lost.push_back(std::move(one.second));
      return true;
    });
  }
  for (const auto& one : lost) bounce(one.sender, one.id, node_down());
  std::vector<std::uint64_t> unanswered;
  for (const auto& [query, what] : queries_)
    if (what.node == node) unanswered.push_back(query);
  for (const auto query : unanswered) {
    queries_.erase(query);
    answer(query, error{errc::unavailable, why, ""});
  }
  std::erase_if(watched_, [&](const auto& one) { return one.first == node->identity; });
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
  std::uint64_t bytes = body.size();
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

// --- out ----------------------------------------------------------------------------------------

void link::send(const link_proxy& to, caf::mailbox_element_ptr what) {
  const auto& content = what->content();
  // These may come from within an actor's mutex; writing them may need that very mutex.
  if (content.match_elements<caf::exit_msg>() || content.match_elements<caf::down_msg>()) {
    const auto keep =
        content.match_elements<caf::exit_msg>()
            ? caf::actor_cast<caf::strong_actor_ptr>(content.get_as<caf::exit_msg>(0).source)
            : nullptr;
    const std::shared_ptr<caf::mailbox_element> element(what.release(), caf::detail::disposer{});
    fabric_->post(
        [this, keep, element, node = to.node_of(), id = to.id()] { send_now(node, id, *element); });
    return;
  }
  send_now(to.node_of(), to.id(), *what);
}

void link::send_now(const node_ptr& node, caf::actor_id to, caf::mailbox_element& what) {
  link_header header{.op = link_op::message, .target = to, .number = what.mid.integer_value()};
  const bool from_here = what.sender && what.sender->node() == system_->node();
  if (what.sender) {
    header.source = what.sender->id();
    if (from_here) {
      system_->registry().put(what.sender->id(), what.sender);  // the answer comes by its id
    } else {
      header.source_node = to_identity(what.sender->node());
      if (!header.source_node) header.source = 0;
    }
  }
  transport::bytes body;
  encode_link_header(header, body);
  wire_context context(*system_, *proxies_);
  wire_message message{std::move(what.stages), what.move_content_to_message()};
  if (auto written = write_message(context, message, body); !written) {
    log_once(node, written.error().detail);
    return bounce(what.sender, what.mid, to_caf(written.error()));
  }
  const bool request = what.mid.is_request();
  const request_key key{header.source, what.mid.request_id().integer_value()};
  result<void> queued;
  {
    const std::lock_guard lock(node->mutex);
    if (request && from_here && node->now != remote_node::state::gone) {
      const std::lock_guard requests(requests_mutex_);
      requests_[key] = {node, what.sender, what.mid};
    }
    // An answer that did not go would leave its asker waiting for ever.
    queued = queue(*node, std::move(body), std::move(context.attachments),
                   what.mid.is_response() ? must_go : transport::fabric::urgency::normal);
  }
  if (queued) return;
  if (request && from_here) {
    const std::lock_guard requests(requests_mutex_);
    requests_.erase(key);
  }
  const bool gone = queued.error().code == errc::unavailable;
  if (!gone) log_once(node, queued.error().detail);
  bounce(what.sender, what.mid, gone ? node_down() : to_caf(queued.error()));
}

void link::bounce(const caf::strong_actor_ptr& sender, caf::message_id id, caf::error why) {
  // (CAF's own bouncer knows one reason only.)
  if (sender && id.is_request())
    sender->enqueue(nullptr, id.response_id(), caf::make_message(std::move(why)), nullptr);
}

void link::announce_link(const node_ptr& node, link_op what, caf::abstract_actor* here,
                         caf::actor_id there) {
  fabric_->post([this, node, what, there, from = caf::strong_actor_ptr(here->ctrl())] {
    system_->registry().put(from->id(), from);
    // Refused: the node is gone, and its proxies with it.
    (void)send_frame(node, {.op = what, .source = from->id(), .target = there}, {});
  });
}

// --- in -----------------------------------------------------------------------------------------

void link::frame_arrived(const transport::peer_ptr& from, std::span<const char> body,
                         std::vector<transport::buffer_ptr> attachments) {
  const auto found = by_peer_.find(from.get());
  if (found == by_peer_.end()) return;
  const node_ptr node = found->second;
  const auto frame = decode_link_frame(body);
  if (!frame) return fabric_->drop(from, "it sent " + frame.error().detail);
  const auto& header = frame->header;
  switch (header.op) {
    case link_op::message:
      return take_message(node, header, frame->payload, std::move(attachments));
    case link_op::monitor:
      return take_monitor(node, header.target);
    case link_op::down:
      return take_down(node, header, frame->payload);
    case link_op::link:
    case link_op::unlink:
      return take_link(node, header);
    case link_op::resolve:
      return take_resolve(node, header, frame->payload);
    case link_op::resolved:
      return take_resolved(header, frame->payload);
  }
}

void link::take_message(const node_ptr& from, const link_header& header,
                        std::span<const char> payload,
                        std::vector<transport::buffer_ptr> attachments) {
  const caf::message_id id(header.number);
  wire_context context(*system_, *proxies_);
  context.attachments = std::move(attachments);
  caf::strong_actor_ptr source;
  if (header.source != 0) {
    const auto node = header.source_node ? to_node_id(*header.source_node) : from->id;
    source = node == system_->node() ? system_->registry().get(header.source)
                                     : proxies_->get_or_put(node, header.source);
  }
  if (id.is_response()) end_request(header.target, id);
  const auto target = system_->registry().get(header.target);
  if (!target) return bounce(source, id, node_down());
  auto read = read_message(context, payload);
  if (!read) {
    log_once(from, read.error().detail);
    const auto why = to_caf(read.error());
    if (id.is_response())
      target->enqueue(source, id, caf::make_message(why), &context);
    else
      bounce(source, id, why);
    return;
  }
  // The proxy would tell the target a second time when its actor is reported down.
  if (read->content.match_elements<caf::exit_msg>()) {
    const auto ended =
        caf::actor_cast<caf::strong_actor_ptr>(read->content.get_as<caf::exit_msg>(0).source);
    if (ended && ended->node() != system_->node() && ended != target)
      ended->get()->remove_link(target->get());
  }
  target->enqueue(caf::make_mailbox_element(std::move(source), id, std::move(read->stages),
                                            std::move(read->content)),
                  &context);
}

void link::end_request(caf::actor_id sender, caf::message_id response) {
  const std::lock_guard lock(requests_mutex_);
  requests_.erase({sender, response.request_id().integer_value()});
}

void link::take_monitor(const node_ptr& from, caf::actor_id target) {
  const auto actor = system_->registry().get(target);
  if (!actor) return tell_down(from, target, caf::make_error(caf::exit_reason::unknown));
  if (!watched_.emplace(from->identity, target).second) return;
  actor->get()->attach_functor(
      [this, from, target, alive = std::weak_ptr<int>(alive_)](const caf::error& why) {
        const auto held = alive.lock();
        if (!held) return;
        fabric_->post([this, from, target, why] {
          watched_.erase({from->identity, target});
          tell_down(from, target, why);
        });
      });
}

void link::tell_down(const node_ptr& to, caf::actor_id ended, const caf::error& why) {
  wire_context context(*system_, *proxies_);
  transport::bytes reason;
  if (auto written = write_reason(context, why, reason); !written) {
    reason.clear();
    (void)write_reason(context, caf::make_error(caf::exit_reason::unknown), reason);
  }
  // Refused: the node is gone, and with it who wanted to know.
  (void)send_frame(to, {.op = link_op::down, .source = ended}, reason);
}

void link::take_down(const node_ptr& from, const link_header& header,
                     std::span<const char> payload) {
  wire_context context(*system_, *proxies_);
  proxies_->erase(from->id, header.source, read_reason(context, payload));
  // Requests to it that its node did not bounce were in its mailbox, and are bounced by CAF there.
}

void link::take_link(const node_ptr& from, const link_header& header) {
  const auto proxy = proxies_->get_or_put(from->id, header.source);
  const auto target = system_->registry().get(header.target);
  if (!proxy) return;
  if (!target) {  // it ended before: the other side hears of it by `down`
    tell_down(from, header.target, caf::make_error(caf::exit_reason::unknown));
    return;
  }
  if (header.op == link_op::link)
    proxy->get()->add_link(target->get());
  else
    proxy->get()->remove_link(target->get());
}

void link::log_once(const node_ptr& about, const std::string& what) {
  const std::lock_guard lock(names_mutex_);
  if (logged_.size() >= max_logged) logged_.clear();
  const auto line = fmt::format("node {}: {}", about->identity.to_string(), what);
  if (logged_.insert(line).second) log_warning("{}", line);
}

// --- names --------------------------------------------------------------------------------------

void link::publish_as(const std::string& name, caf::strong_actor_ptr actor,
                      caf::actor_system::mpi types) {
  ensure(actor && !name.empty() && name.size() <= max_published_name_bytes,
         "an actor is published under a name");
  system_->registry().put(actor->id(), actor);
  const std::lock_guard lock(names_mutex_);
  names_[name] = {std::move(actor), std::move(types)};
}

void link::withdraw(const std::string& name) {
  const std::lock_guard lock(names_mutex_);
  names_.erase(name);
}

result<link::published> link::find_published(const std::string& name) {
  const std::lock_guard lock(names_mutex_);
  const auto found = names_.find(name);
  if (found == names_.end())
    return error{errc::not_found,
                 fmt::format("{} has published nothing as \"{}\"", address(), name), "name"};
  if (!system_->registry().get(found->second.actor->id())) {
    names_.erase(found);
    return error{errc::not_found, fmt::format("\"{}\" of {} has ended", name, address()), "name"};
  }
  return found->second;
}

void link::look_up(std::uint64_t query, resolve_actor wanted) {
  auto where = transport::address::parse(wanted.address);
  if (!where) return answer(query, where.error());
  if (wanted.name.empty() || wanted.name.size() > max_published_name_bytes)
    return answer(
        query,
        error{errc::bad_request,
              fmt::format("a name has 1 to {} characters", max_published_name_bytes), "name"});
  fabric_->post([this, query, where = *where, wanted = std::move(wanted)]() mutable {
    if (where == self().listen) {
      auto found = find_published(wanted.name);
      return answer(query, found ? result<caf::strong_actor_ptr>(found->actor) : found.error());
    }
    for (const auto& [peer, node] : by_peer_)
      if (node->identity.listen == where) return ask(node, query, std::move(wanted));
    fabric_->dial(where, [this, query, wanted = std::move(wanted)](
                             const result<transport::peer_ptr>& found) mutable {
      if (!found) return answer(query, found.error());
      const auto known = by_peer_.find(found->get());
      if (known == by_peer_.end())
        return answer(query, error{errc::unavailable, "it left at once", ""});
      ask(known->second, query, std::move(wanted));
    });
  });
}

void link::ask(const node_ptr& node, std::uint64_t query, resolve_actor wanted) {
  const transport::bytes name(wanted.name.begin(), wanted.name.end());
  queries_[query] = {node, std::move(wanted)};
  const auto sent = send_frame(node, {.op = link_op::resolve, .number = query}, name);
  if (sent) return;
  queries_.erase(query);
  answer(query, sent.error());
}

void link::answer(std::uint64_t query, result<caf::strong_actor_ptr> found) {
  query_answered told{query, nullptr, {}};
  if (found)
    told.found = *std::move(found);
  else
    told.failure.push_back(found.error());
  caf::anon_send(desk_, std::move(told));
}

void link::take_resolve(const node_ptr& from, const link_header& header,
                        std::span<const char> payload) {
  const auto found = find_published(std::string(payload.begin(), payload.end()));
  resolved_name told;
  if (found)
    told.message_types.assign(found->types.begin(), found->types.end());
  else
    told.failure = found.error().detail;
  (void)send_frame(
      from,
      {.op = link_op::resolved, .target = found ? found->actor->id() : 0, .number = header.number},
      encode_resolved(told));
}

void link::take_resolved(const link_header& header, std::span<const char> payload) {
  const auto found = queries_.find(header.number);
  if (found == queries_.end()) return;
  const auto query = std::move(found->second);
  queries_.erase(found);
  const auto told = decode_resolved(payload);
  if (!told) return answer(header.number, told.error());
  if (!told->failure.empty())
    return answer(header.number, error{errc::not_found, told->failure, "name"});
  const caf::actor_system::mpi offered(told->message_types.begin(), told->message_types.end());
  const auto& types = query.wanted.message_types;
  const caf::actor_system::mpi wanted(types.begin(), types.end());
  if (!system_->assignable(offered, wanted))
    return answer(
        header.number,
        error{errc::conflict,
              fmt::format("\"{}\" of {} answers other messages than those asked for: {}",
                          query.wanted.name, query.wanted.address, fmt::join(offered, ", ")),
              "name"});
  answer(header.number, proxies_->get_or_put(query.node->id, header.target));
}

}  // namespace tandem::actors
