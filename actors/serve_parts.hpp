// What the parts of the serve coordinator share: serve_coordinator.cpp (devices, steps, requests)
// and serve_versions.cpp (weights versions). Internal to these two.
#pragma once

#include "actors/serve_coordinator.hpp"

#include <functional>
#include <string>

namespace tandem::actors::serving {

using self_pointer = serve_coordinator_actor::stateful_pointer<serve_state>;
using lane = serve_state::lane;
using live_request = serve_state::live_request;

// --- serve_coordinator.cpp ----------------------------------------------------------------------

// Whatever came back belongs to an older lease when the lane's epoch has moved on: null.
lane* lane_at(self_pointer self, const std::string& name, lease::epoch at);
void report(self_pointer self);
// The next step, where there is one to run and nothing it needs is missing.
void pump(self_pointer self, lane& l);
void keep_ticking(self_pointer self);
// Ends this lane's requests that `which` holds for.
void fail_requests(self_pointer self, const std::string& name, const error& why,
                   const std::function<bool(const live_request&)>& which);
// The device is not to be trusted any more; its node starts it anew.
void give_up_device(self_pointer self, lane& l, const caf::error& why);

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
