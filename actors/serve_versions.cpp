// Weights versions of a served base: brought to every lane that can have them, then named, and
// taken back once nobody runs on them. Nothing here waits: a step that a lane runs meanwhile is at
// most one piece late.
#include "actors/serve_parts.hpp"

#include "actors/fault.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <utility>

namespace tandem::actors::serving {
namespace {

using publication = serve_state::publication;
using entry = serve::version_book::entry;

std::string title(const entry& version) {
  return fmt::format("version {} of {}", version.version,
                     version.job.empty() ? "no job" : version.job);
}

// Answers once no lane is waited for and it is known whether any has it.
void settle(self_pointer self, serve::variant_id id) {
  auto& state = self->state;
  const auto it = state.publications.find(id);
  if (it == state.publications.end() || !it->second.waits_for.empty()) return;
  const auto& version = *state.versions.find(id);
  if (version.devices.empty() && !it->second.refusal) return;  // the first lane is on its way
  auto done = std::move(it->second);
  state.publications.erase(it);
  if (version.devices.empty()) {
    state.versions.give_up(id);
    retire_versions(self);
    done.answer.deliver(to_caf(*done.refusal));
    return;
  }
  version_published fact{id, {version.devices.begin(), version.devices.end()}};
  state.versions.publish(id, done.names);
  retire_versions(self);
  report(self);  // before the answer: whoever hears that it is there can ask for it
  done.answer.deliver(std::move(fact));
}

void stop_waiting(self_pointer self, serve::variant_id id, const std::string& name,
                  std::optional<error> refusal) {
  const auto it = self->state.publications.find(id);
  if (it == self->state.publications.end()) return;
  it->second.waits_for.erase(name);
  if (refusal) it->second.refusal = std::move(refusal);
  settle(self, id);
}

void order_removal(self_pointer self, lane& l, serve::variant_id id) {
  if (!l.device) return;
  self->request(l.device, self->state.options.step_deadline, remove_version{l.held.at, id})
      .then(
          [=, name = l.held.device, life = l.life](serve::device_facts& facts) {
            if (auto* now = lane_of(self, name, life)) now->facts = std::move(facts);
          },
          [=, name = l.held.device](const caf::error& why) {
            log_debug("device {}: removing variant {}: {}", name, id, from_caf(why).detail);
          });
}

void version_arrived(self_pointer self, lane& l, serve::variant_id id, serve::device_facts facts) {
  auto& state = self->state;
  l.facts = std::move(facts);
  l.arriving.erase(id);
  l.awaited.erase(id);
  if (state.versions.find(id) == nullptr) {
    order_removal(self, l, id);  // taken back while it was on its way
  } else {
    state.versions.arrived(id, l.held.device);
    stop_waiting(self, id, l.held.device, std::nullopt);
  }
  look_at_departures(self);
  pump(self, l);
}

void version_refused(self_pointer self, lane& l, serve::variant_id id, const error& why) {
  const auto name = l.held.device;
  log_warning("device {} cannot have variant {}: {}", name, id, why.detail);
  l.arriving.erase(id);
  l.awaited.erase(id);
  fail_requests(self, name, why, [id](const live_request& r) { return r.variant == id; });
  stop_waiting(self, id, name, why);
  pump(self, l);
  retire_versions(self);
}

// What lies in our memory does not travel to a device of another process; a checkpoint is read
// there.
bool can_reach(self_pointer self, const lane& l, const entry& version) {
  return l.device.node() == self->node() || !version.checkpoint.empty();
}

// Brings it into the lane's memory: from where it lies, or from its checkpoint.
void send_version(self_pointer self, lane& l, const entry& version, serve::variant what) {
  const auto id = version.id;
  l.arriving.insert(id);
  const auto arrived = [=, name = l.held.device, life = l.life](serve::device_facts& facts) {
    if (auto* now = lane_of(self, name, life)) version_arrived(self, *now, id, std::move(facts));
  };
  const auto failed = [=, name = l.held.device, life = l.life](const caf::error& why) {
    auto* now = lane_of(self, name, life);
    if (!now) return;
    if (is_refusal(why)) return version_refused(self, *now, id, from_caf(why));
    log_error("device {}: variant {} failed: {}", name, id, from_caf(why).detail);
    give_up_device(self, *now, why);
  };
  const auto& options = self->state.options;
  if ((what.adapter || what.weights) && l.device.node() == self->node())
    self->request(l.device, options.step_deadline, add_version{l.held.at, id, std::move(what)})
        .then(arrived, failed);
  else
    self->request(l.device, options.load_deadline,
                  load_version{l.held.at, id, version.checkpoint, version.version})
        .then(arrived, failed);
}

result<void> check(const serve_state& state, const publish_version& order) {
  const int sources = (order.adapter ? 1 : 0) + (order.by_device.empty() ? 0 : 1);
  if (sources > 1 || (sources == 0 && order.checkpoint.empty()))
    return error{errc::bad_request,
                 fmt::format("version {} of {}: one of an adapter, weights by device and a "
                             "checkpoint is wanted",
                             order.version, order.job),
                 {}};
  if (order.names.empty())
    return error{errc::bad_request, fmt::format("version {} has no name", order.version), {}};
  for (const auto& name : order.names)
    if (name.empty() || name == state.options.model)
      return error{errc::conflict, fmt::format("'{}' is the base model's own name", name), {}};
  return {};
}

// What this lane is to be sent; nothing when it can have nothing.
std::optional<serve::variant> source_for(const publish_version& order, const std::string& device) {
  if (order.by_device.empty()) return serve::variant{order.version, order.adapter, nullptr};
  for (const auto& one : order.by_device)
    if (one.device == device) return one.what;
  if (!order.checkpoint.empty()) return serve::variant{order.version, nullptr, nullptr};
  return std::nullopt;
}

}  // namespace

caf::result<version_published> begin_publication(self_pointer self, publish_version& order) {
  auto& state = self->state;
  if (auto fine = check(state, order); !fine) return to_caf(fine.error());
  entry fresh;
  fresh.version = order.version;
  fresh.job = order.job;
  fresh.kind = order.kind;
  fresh.published_at = std::time(nullptr);
  fresh.adapter = order.adapter;
  fresh.checkpoint = order.checkpoint;
  const auto id = state.versions.add(std::move(fresh));
  const auto& version = *state.versions.find(id);
  auto& made = state.publications[id];
  made.names = order.names;
  made.answer = self->make_response_promise<version_published>();
  made.began = self->clock().now();
  auto answer = made.answer;
  for (auto& [name, l] : state.lanes) {
    auto what = source_for(order, name);
    const bool loads = l.device && !l.model;
    if (!what || !l.device || (loads && !version.can_return())) continue;
    if (!can_reach(self, l, version)) continue;
    made.waits_for.insert(name);
    if (l.model) send_version(self, l, version, *std::move(what));
  }
  if (made.waits_for.empty() && !version.can_return())
    made.refusal = error{errc::unavailable,
                         fmt::format("no device that has {} serves this model now", title(version)),
                         {}};
  keep_ticking(self);
  settle(self, id);
  return answer;
}

void take_names_back(self_pointer self, const withdraw_names& order) {
  self->state.versions.withdraw(order.names);
  retire_versions(self);
  report(self);
}

void retire_versions(self_pointer self) {
  auto& state = self->state;
  for (const auto& version : state.versions.take_idle())
    for (const auto& device : version.devices)
      order_removal(self, state.lanes.at(device), version.id);
}

void restore_versions(self_pointer self, lane& l) {
  auto& state = self->state;
  for (const auto& [id, version] : state.versions.entries()) {
    if (!version.can_return()) continue;
    if (!can_reach(self, l, version)) {
      fail_requests(
          self, l.held.device,
          {errc::unavailable,
           fmt::format("device {} is in another process, and {} lies in the head's memory "
                       "alone",
                       l.held.device, title(version)),
           {}},
          [id = id](const live_request& r) { return r.variant == id; });
      continue;
    }
    send_version(self, l, version, {version.version, version.adapter, nullptr});
    if (const auto it = state.publications.find(id); it != state.publications.end())
      it->second.waits_for.insert(l.held.device);
  }
  for (const auto& [id, request] : state.requests)
    if (request.lane == l.held.device && l.arriving.contains(request.variant))
      l.awaited.insert(request.variant);
}

void lose_versions(self_pointer self, lane& l) {
  auto& state = self->state;
  const auto name = l.held.device;
  l.arriving.clear();
  l.awaited.clear();
  state.versions.device_lost(name);
  std::vector<serve::variant_id> gone;
  for (const auto& [id, version] : state.versions.entries()) {
    if (version.can_return()) continue;
    gone.push_back(id);
    fail_requests(
        self, name,
        {errc::unavailable,
         fmt::format("device {} died, and {} was in its memory only", name, title(version)),
         {}},
        [id = id](const live_request& r) { return r.variant == id; });
  }
  for (const auto id : gone)
    stop_waiting(self, id, name, error{errc::unavailable, fmt::format("device {} died", name), {}});
}

void stop_waiting_for(self_pointer self, const std::string& name, const error& why) {
  std::vector<serve::variant_id> waiting;
  for (const auto& [id, publication] : self->state.publications)
    if (publication.waits_for.contains(name)) waiting.push_back(id);
  for (const auto id : waiting) stop_waiting(self, id, name, why);
}

void look_at_publications(self_pointer self) {
  auto& state = self->state;
  std::vector<serve::variant_id> late;
  for (auto& [id, publication] : state.publications)
    if (self->clock().now() - publication.began > state.options.load_deadline) late.push_back(id);
  for (const auto id : late) {
    auto& publication = state.publications.at(id);
    publication.waits_for.clear();
    if (!publication.refusal)
      publication.refusal = error{
          errc::timed_out,
          fmt::format("{} found no device for {} s", title(*state.versions.find(id)),
                      std::chrono::duration_cast<std::chrono::seconds>(state.options.load_deadline)
                          .count()),
          {}};
    settle(self, id);
  }
}

bool can_run(const serve_state& state, const lane& l, serve::variant_id id) {
  if (id == 0) return true;
  const auto* version = state.versions.find(id);
  if (version == nullptr) return false;
  if (version->devices.contains(l.held.device) || l.arriving.contains(id)) return true;
  return !l.model && version->can_return();  // it comes back with its device
}

std::vector<served_version> served_versions(const serve_state& state) {
  std::vector<served_version> list;
  for (const auto& [name, id] : state.versions.names()) {
    const auto& version = *state.versions.find(id);
    list.push_back({name,
                    version.version,
                    version.job,
                    version.kind,
                    version.published_at,
                    {version.devices.begin(), version.devices.end()}});
  }
  return list;
}

}  // namespace tandem::actors::serving
