// The link's messages: out in the sender's thread, in on the fabric's.
#include "actors/link.hpp"
#include "actors/messages.hpp"
#include "runtime/log.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::actors {

namespace {

constexpr std::size_t max_logged = 256;
constexpr auto must_go = transport::fabric::urgency::must_go;

}  // namespace

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
  const bool awaited = what.mid.is_request() && from_here;
  result<void> queued;
  {
    const std::lock_guard lock(node->mutex);
    if (awaited && node->now != remote_node::state::gone)
      requests_.add(node, what.sender, what.mid);
    // An answer that did not go would leave its asker waiting for ever.
    queued = queue(*node, std::move(body), std::move(context.attachments),
                   what.mid.is_response() ? must_go : transport::fabric::urgency::normal);
  }
  if (queued) return;
  if (awaited) requests_.end(header.source, what.mid);
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
    // By the time its node asks why it ended, nobody here would know.
    if (what == link_op::link) watch_for(node, from);
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
      return take_resolved(node, header, frame->payload);
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
  if (id.is_response()) requests_.end(header.target, id);
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

void link::take_monitor(const node_ptr& from, caf::actor_id target) {
  if (const auto actor = system_->registry().get(target))
    watch_for(from, actor);
  else
    tell_ended(from, target);
}

// `who` hears why this actor of ours ends, or ended.
void link::watch_for(const node_ptr& who, const caf::strong_actor_ptr& actor) {
  const auto target = actor->id();
  const auto [watched, first] = watched_.try_emplace(target);
  auto& watchers = watched->second;
  if (std::ranges::find(watchers, who) == watchers.end()) watchers.push_back(who);
  // One an actor, however often nodes come and go: it cannot be taken off again.
  if (!first) return;
  actor->get()->attach_functor(
      [this, target, alive = std::weak_ptr<int>(alive_)](const caf::error& why) {
        const auto held = alive.lock();
        if (!held) return;
        fabric_->post([this, target, why] {
          const auto ended = watched_.extract(target);
          if (ended.empty()) return;
          for (const auto& node : ended.mapped()) tell_down(node, target, why);
        });
      });
}

// This actor is not here any more.
void link::tell_ended(const node_ptr& who, caf::actor_id target) {
  const auto watched = watched_.find(target);
  if (watched == watched_.end())
    return tell_down(who, target, caf::make_error(caf::exit_reason::unknown));
  // It ends just now: why is on its way to us.
  auto& watchers = watched->second;
  if (std::ranges::find(watchers, who) == watchers.end()) watchers.push_back(who);
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
  if (!target) return tell_ended(from, header.target);
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

}  // namespace tandem::actors
