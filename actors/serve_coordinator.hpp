// The serve coordinator: one per served base model. A lane is one leased device with the model in
// its memory and a scheduler of its own; a request lives on one lane. The coordinator asks the
// lane's scheduler for the next step plan, sends it, and turns what comes back into text. Versions
// of the weights come and go between steps (serve_versions.cpp); a request keeps the one it began
// with.
#pragma once

#include "actors/messages.hpp"
#include "runtime/serve/output_text.hpp"
#include "runtime/serve/scheduler.hpp"
#include "runtime/serve/version_book.hpp"
#include "runtime/text/tokenizer.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace tandem::actors {

struct serve_options {
  std::string model;  // the name clients use
  serve::load_order load;
  std::shared_ptr<const text::tokenizer> tokenizer;  // null: token ids only
  int prefill_chunk_tokens = 128;
  int max_queued = 1024;
  bool prefix_cache = true;
  // A step that takes longer is a hang: the device is treated as dead.
  std::chrono::milliseconds step_deadline{std::chrono::minutes(10)};
  std::chrono::milliseconds load_deadline{std::chrono::minutes(30)};
  // A lost device that is not back by then fails its requests.
  std::chrono::milliseconds return_deadline{std::chrono::seconds(30)};
};

struct serve_state {
  struct lane {
    lease::lease held;
    serve::device_facts facts;
    gpu_actor device;  // empty: lost, waiting for a new lease
    std::optional<serve::loaded_model> model;
    std::unique_ptr<serve::scheduler> scheduler;  // made at the first load, outlives the device
    // Versions ordered into its memory and not there yet; of these, those that its requests wait
    // for: no step is planned before they are there.
    std::set<serve::variant_id> arriving;
    std::set<serve::variant_id> awaited;
    bool in_flight = false;
    caf::actor_clock::time_point step_began{};
    caf::actor_clock::time_point lost_at{};  // when `device` became empty
    std::uint64_t steps = 0;
    std::uint64_t rows = 0;
    std::int64_t busy_ns = 0;
  };
  struct live_request {
    gateway_actor origin;
    std::string lane;
    serve::variant_id variant = 0;
    std::vector<serve::output_text> texts;  // by choice; empty when no text is wanted
    std::vector<char> open;                 // by choice: not finished yet
    int open_count = 0;
    int min_tokens = 0;
    bool want_logprobs = false;
  };
  // A version on its way to the lanes, before anybody can ask for it.
  struct publication {
    std::vector<std::string> names;
    std::set<std::string> waits_for;  // lanes
    std::optional<error> refusal;     // the newest, of a lane that cannot have it
    caf::typed_response_promise<version_published> answer;
    caf::actor_clock::time_point began{};
  };
  using request_map = std::unordered_map<serve::request_id, live_request>;

  serve_options options;
  std::map<std::string, lane> lanes;  // by device name
  request_map requests;
  serve::version_book versions;
  std::map<serve::variant_id, publication> publications;
  std::vector<gateway_actor> subscribers;
  std::vector<error> failures;
  std::uint64_t devices_lost = 0;
  caf::actor_clock::time_point reported{};
  bool ticking = false;

  static inline const char* name = "serve_coordinator";
};

serve_coordinator_actor::behavior_type serve_coordinator(
    serve_coordinator_actor::stateful_pointer<serve_state> self, serve_options options,
    coordinator_actor coordinator);

}  // namespace tandem::actors
