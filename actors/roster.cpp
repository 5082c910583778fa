#include "actors/roster.hpp"

#include "actors/fault.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace tandem::actors {
namespace {

using self_pointer = roster_actor::stateful_pointer<roster_state>;
using member = roster_state::member;
using state_of_node = node_report::state;
using leave_answer = std::function<void(result<void>)>;

constexpr std::size_t left_kept = 64;
constexpr std::size_t members_max = 256;
constexpr std::size_t devices_max = 256;  // of one node
constexpr std::size_t name_bytes_max = 64;
constexpr auto own_news_first = std::chrono::milliseconds(500);

std::int64_t unix_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

void put_report(self_pointer self) {
  const auto& state = self->state;
  if (!state.options.board) return;
  std::vector<node_report> nodes = {state.options.head};
  for (const auto& [name, m] : state.members) nodes.push_back(m.report);
  nodes.insert(nodes.end(), state.left.rbegin(), state.left.rend());
  state.options.board->put(std::move(nodes));
}

void add_event(self_pointer self, std::string kind, std::string why) {
  if (!self->state.options.events) return;
  lease::event event;
  event.kind = std::move(kind);
  event.cause = "the cluster changed";
  event.why = std::move(why);
  event.time_ms = unix_ms();
  self->state.options.events->add(std::move(event));
}

bool is_plain(const std::string& name) {
  return !name.empty() && name.size() <= name_bytes_max && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

result<void> check(const roster_state& state, const join_cluster& order) {
  if (!state.heads.sure)
    return error{errc::unavailable, "this head cannot reach its store: another one may lead by now",
                 "store.url"};
  if (order.store == state.options.store && order.epoch > state.options.epoch)
    return error{errc::unavailable,
                 fmt::format("this head led in epoch {}, another one leads since (epoch {})",
                             state.options.epoch, order.epoch),
                 "store.url"};
  if (!is_plain(order.node))
    return error{errc::bad_request,
                 fmt::format("a node's name has 1 to {} letters, digits and . _ -", name_bytes_max),
                 "name"};
  if (order.node == state.options.head.node || state.members.contains(order.node))
    return error{
        errc::conflict,
        fmt::format("a node named {} is in the cluster already: give another --name", order.node),
        "name"};
  if (state.members.size() >= members_max || order.devices.size() > devices_max)
    return error{
        errc::overloaded,
        fmt::format("a cluster has up to {} nodes of up to {} devices", members_max, devices_max),
        "name"};
  const auto prefix = order.node + "/";
  for (const auto& device : order.devices)
    if (!device.starts_with(prefix))
      return error{errc::bad_request, fmt::format("device {} is not named {}…", device, prefix),
                   "devices"};
  return {};
}

cluster_joined welcome(const roster_state& state) {
  return {state.options.keeper, state.options.store, state.options.epoch, state.heads.others};
}

caf::result<cluster_joined> let_worker_in(self_pointer self, const join_cluster& order) {
  auto& state = self->state;
  if (order.devices.size() != 1 || state.workers.size() >= members_max * devices_max)
    return to_caf({errc::bad_request, "a worker has one device", "devices"});
  self->monitor(order.member);
  state.workers[order.member.address()] = {order.node, order.devices.front(), order.process};
  return welcome(state);
}

// Its node may know better how it ended; it may also still be there, and stand still.
bool worker_gone(self_pointer self, const caf::actor_addr& who) {
  auto& state = self->state;
  const auto it = state.workers.find(who);
  if (it == state.workers.end()) return false;
  const auto gone = std::move(it->second);
  state.workers.erase(it);
  if (const auto watcher = state.watchers.find(gone.node); watcher != state.watchers.end())
    self->delayed_send(caf::actor_cast<node_actor>(watcher->second), own_news_first,
                       worker_ended{gone.device, gone.process, "it fell silent"});
  return true;
}

caf::result<cluster_joined> let_in(self_pointer self, const join_cluster& order) {
  auto& state = self->state;
  if (order.is_worker) return let_worker_in(self, order);
  if (auto fine = check(state, order); !fine) return to_caf(fine.error());
  self->monitor(order.member);
  auto& m = state.members[order.node];
  m.actor = order.member;
  m.report = {order.node, order.address, order.devices, state_of_node::up, false, unix_ms(), ""};
  std::erase_if(state.left, [&](const node_report& one) { return one.node == order.node; });
  add_event(self, "node_joined",
            fmt::format("{} at {} lends {} device{}", order.node, order.address,
                        order.devices.size(), order.devices.size() == 1 ? "" : "s"));
  log_info("node {} at {} joined with {} devices", order.node, order.address, order.devices.size());
  put_report(self);
  return welcome(state);
}

void answer_all(member& m, const result<void>& with) {
  for (auto& answer : std::exchange(m.leaves, {})) answer(with);
}

void node_gone(self_pointer self, std::map<std::string, member>::iterator it, std::string why) {
  auto& state = self->state;
  auto gone = std::move(it->second);
  state.members.erase(it);
  state.watchers.erase(gone.report.node);
  // It may end before the coordinator's word that its devices are idle has come back.
  answer_all(gone, {});
  gone.report.now = state_of_node::left;
  gone.report.since_ms = unix_ms();
  gone.report.why = std::move(why);
  add_event(self, "node_left", fmt::format("{}: {}", gone.report.node, gone.report.why));
  log_info("node {} left: {}", gone.report.node, gone.report.why);
  state.left.push_back(std::move(gone.report));
  if (state.left.size() > left_kept) state.left.erase(state.left.begin());
  put_report(self);
}

void ask_back(self_pointer self, const std::string& node) {
  auto& state = self->state;
  const auto& m = state.members.at(node);
  if (!state.coordinator) return;
  // CAF lets a typed handler of an answer without content wait for ever: a dynamic one hears it.
  self->request(caf::actor_cast<caf::actor>(state.coordinator), caf::infinite,
                retire_devices{node, m.report.devices})
      .then(
          [=, actor = m.actor] {
            const auto it = self->state.members.find(node);
            if (it == self->state.members.end() || it->second.actor != actor) return;
            answer_all(it->second, {});
            caf::anon_send(actor, let_go{"its devices are idle"});
          },
          [=](const caf::error& why) {  // a new coordinator is asked again
            log_warning("node {} waits to leave: {}", node, from_caf(why).detail);
          });
}

void begin_leave(self_pointer self, const std::string& node, leave_answer answer) {
  auto& state = self->state;
  if (node == state.options.head.node)
    return answer(error{errc::conflict,
                        fmt::format("{} is the head: end it with SIGTERM, it drains itself", node),
                        "node"});
  const auto it = state.members.find(node);
  if (it == state.members.end())
    return answer(error{errc::not_found, fmt::format("no node named {} is here", node), "node"});
  auto& m = it->second;
  m.leaves.push_back(std::move(answer));
  if (m.report.now == state_of_node::draining) return;
  m.report.now = state_of_node::draining;
  m.report.since_ms = unix_ms();
  put_report(self);
  ask_back(self, node);
}

}  // namespace

const char* name_of(node_report::state now) {
  switch (now) {
    case node_report::state::up:
      return "up";
    case node_report::state::draining:
      return "draining";
    case node_report::state::left:
      return "left";
  }
  return "left";
}

void node_board::put(std::vector<node_report> nodes) {
  const std::lock_guard lock(mutex_);
  nodes_ = std::move(nodes);
}

std::vector<node_report> node_board::newest() const {
  const std::lock_guard lock(mutex_);
  return nodes_;
}

roster_actor::behavior_type roster(self_pointer self, roster_options options,
                                   coordinator_actor coordinator) {
  keep_exception_text(self);
  self->state.options = std::move(options);
  self->state.coordinator = std::move(coordinator);
  self->set_down_handler([=](const caf::down_msg& down) {
    if (worker_gone(self, down.source)) return;
    auto& members = self->state.members;
    for (auto it = members.begin(); it != members.end(); ++it) {
      if (it->second.actor.address() != down.source) continue;
      const bool meant = it->second.report.now == state_of_node::draining;
      return node_gone(self, it,
                       meant                     ? "it was drained"
                       : is_refusal(down.reason) ? from_caf(down.reason).detail
                                                 : "its connection was lost");
    }
  });
  put_report(self);
  return {
      [=](const join_cluster& order) { return let_in(self, order); },
      [=](const watch_workers& order) { self->state.watchers[order.node] = order.by; },
      [=](const leave_cluster& order) -> caf::result<void> {
        auto answer = self->make_response_promise<caf::unit_t>();
        begin_leave(self, order.node, [answer](const result<void>& done) mutable {
          done ? answer.deliver(caf::unit) : answer.deliver(to_caf(done.error()));
        });
        return answer;
      },
      [=](const heads_changed& news) {
        self->state.heads = news;
        for (const auto& [name, m] : self->state.members) caf::anon_send(m.actor, news);
      },
      [=](submit_drain& order) { begin_leave(self, order.node, std::move(order.answer)); },
      [=](const coordinator_changed& fact) {
        self->state.coordinator = fact.now;
        for (const auto& [name, m] : self->state.members)
          if (m.report.now == state_of_node::draining) ask_back(self, name);
      },
  };
}

}  // namespace tandem::actors
