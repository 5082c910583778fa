// What the parts of the serve coordinator share: serve_coordinator.cpp (devices), serve_steps.cpp
// (what they run), serve_requests.cpp (who asks), serve_moves.cpp (requests and devices that change
// places), serve_progress.cpp (devices that stand still), serve_reports.cpp and serve_versions.cpp
// (weights versions). Internal to these.
#pragma once

#include "actors/serve_coordinator.hpp"

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace tandem::actors::serving {

using self_pointer = serve_coordinator_actor::stateful_pointer<serve_state>;
using lane = serve_state::lane;
using live_request = serve_state::live_request;

// --- serve_coordinator.cpp ----------------------------------------------------------------------

// Whatever came back belongs to an older tenure when the lane's has moved on: null.
lane* lane_at(self_pointer self, const std::string& name, lease::epoch at);
// Likewise for what does not depend on the role, only on this life of the device.
lane* lane_of(self_pointer self, const std::string& name, std::uint64_t life);
// What the device has of ours counts for nothing any more.
void no_step(lane& l);
void keep_ticking(self_pointer self);
// The model, into the memory of a device that does not have it.
void bring_up(self_pointer self, lane& l);
void lose_device(self_pointer self, lane& l);
// Ends this lane's requests that `which` holds for.
void fail_requests(self_pointer self, const std::string& name, const error& why,
                   const std::function<bool(const live_request&)>& which);
// The device is not to be trusted any more; its node starts it anew.
void give_up_device(self_pointer self, lane& l, const caf::error& why);

// --- serve_steps.cpp ----------------------------------------------------------------------------

// What became of sequences, for each gateway.
using outbox = std::map<gateway_actor, std::vector<serve::generation_delta>>;
void deliver(self_pointer self, lane& l, std::vector<serve::sequence_event> events, outbox& out);
void send_all(self_pointer self, outbox& out);
// The next step, where there is one to run and nothing it needs is missing.
void pump(self_pointer self, lane& l);

// --- serve_requests.cpp -------------------------------------------------------------------------

void send_failure(self_pointer self, const gateway_actor& origin, serve::request_id id,
                  const error& why);
// Its scheduler knows of it no more; what comes next in the map.
serve_state::request_map::iterator end_request(serve_state& state,
                                               serve_state::request_map::iterator it);
void accept(self_pointer self, generate& order, const gateway_actor& origin);
void cancel(self_pointer self, serve::request_id id);
// It is told how serving goes, until it is gone; then nobody waits for its requests.
void add_gateway(self_pointer self, gateway_actor who);
bool gateway_down(self_pointer self, const caf::actor_addr& who);

// --- serve_moves.cpp ---------------------------------------------------------------------------

// The lane a new request goes to, its variant filled in; null: none can run it.
lane* choose_lane(serve_state& state, const serve::generation_request& request);
// Is this device lent to us and the model in its memory?
bool serves_now(const lane& l);
void take_grant(self_pointer self, lease_granted& fact);
void take_change(self_pointer self, const lease_changed& fact);
caf::result<device_released> begin_release(self_pointer self, const release_device& order);
// The device refused a step because it cannot copy what another one had: its requests are read
// again.
void read_again(self_pointer self, lane& l);
// The device refused a step because its tenure here has ended: it is somebody else's.
void tenure_ended(self_pointer self, lane& l);
// Its requests go to lanes that can take them; those that nobody can take stay. Returns sequences.
int hand_requests_over(self_pointer self, lane& l);
// A lane has just become able to serve: it takes unread requests of fuller ones, what runs there
// once the step in flight is done, and departures are tried again.
void take_share(self_pointer self, lane& l);
// Between two steps: what runs here and can take its keys and values along goes to emptier lanes,
// if one has become able to serve.
void share_out(self_pointer self, lane& from);
void look_at_departures(self_pointer self);
void end_departure(lane& l, const error& why);

// --- serve_progress.cpp -------------------------------------------------------------------------

// At each tick, first: time in which this very process stood still counts for no device.
void forgive_standstill(self_pointer self);
// A device whose step takes far longer than steps did of late counts as dead.
void look_at_progress(self_pointer self, lane& l);

// --- serve_reports.cpp --------------------------------------------------------------------------

serve::time_ns now_ns(self_pointer self);
// To the subscribers and the coordinator.
void report(self_pointer self);
// Likewise, of one lane's change: at once, or with others' where there are very many.
void report_change(self_pointer self);
void report_if_due(self_pointer self);
bool all_idle(const serve_state& state);
// For the latencies of service: tokens of a choice went out.
void note_tokens(self_pointer self, live_request& live, int choice);

// --- serve_versions.cpp -------------------------------------------------------------------------

caf::result<version_published> begin_publication(self_pointer self, publish_version& order);
void take_names_back(self_pointer self, const withdraw_names& order);
// Versions that nobody can ask for or runs on leave the devices. After any request's end.
void retire_versions(self_pointer self);
// A device has the base in its memory (again): everything else it can have follows.
void restore_versions(self_pointer self, lane& l);
// Its memory is gone. Requests on what cannot come back end here.
void lose_versions(self_pointer self, lane& l);
// No publication waits for this lane any more.
void stop_waiting_for(self_pointer self, const std::string& name, const error& why);
// Publications that found no device for too long fail.
void look_at_publications(self_pointer self);
// May a request on this variant go to this lane?
bool can_run(const serve_state& state, const lane& l, serve::variant_id id);
std::vector<served_version> served_versions(const serve_state& state);

}  // namespace tandem::actors::serving
