// The link's names: what this node publishes, and what it looks up at others.
#include "actors/link.hpp"

#include <fmt/format.h>

namespace tandem::actors {

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
  const std::string name(payload.begin(), payload.end());
  const auto found = name.size() <= max_published_name_bytes
                         ? find_published(name)
                         : error{errc::bad_request,
                                 fmt::format("a name of {} bytes, {} are allowed", name.size(),
                                             max_published_name_bytes),
                                 "name"};
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

void link::take_resolved(const node_ptr& from, const link_header& header,
                         std::span<const char> payload) {
  const auto found = queries_.find(header.number);
  if (found == queries_.end() || found->second.node != from) return;
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
