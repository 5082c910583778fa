// The serve coordinator: one per served base model. A lane is one leased device with the model in
// its memory and a scheduler of its own; a request lives on one lane. The coordinator asks the
// lane's scheduler for the next step plan, sends it, and turns what comes back into text. Versions
// of the weights come and go between steps (serve_versions.cpp); a request keeps the one it began
// with. A lane whose device is given away rests: its requests go on elsewhere (serve_moves.cpp),
// the model stays in the device's memory.
#pragma once

#include "actors/messages.hpp"
#include "runtime/serve/latency_window.hpp"
#include "runtime/serve/output_text.hpp"
#include "runtime/serve/scheduler.hpp"
#include "runtime/serve/step_pace.hpp"
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
  // A step that takes longer is a hang, and mostly far less is (step_pace): the device is treated
  // as dead.
  std::chrono::milliseconds step_deadline{std::chrono::minutes(10)};
  std::chrono::milliseconds load_deadline{std::chrono::minutes(30)};
  // A lost device that is not back by then fails its requests.
  std::chrono::milliseconds return_deadline{std::chrono::seconds(30)};
};

struct serve_state {
  // A device on its way out that still has requests nobody else can take.
  struct departure {
    caf::typed_response_promise<device_released> answer;
    device_released done;
  };
  struct lane {
    lease::lease held;
    serve::device_facts facts;
    gpu_actor device;        // empty: lost, waiting for a new lease
    std::uint64_t life = 0;  // counts devices brought up: what an older one answers is void
    bool loading = false;
    std::optional<serve::loaded_model> model;
    bool resting = false;  // the device is somebody else's now; the model is still in its memory
    std::optional<departure> leaving;  // no new requests, as long as there are other lanes
    std::unique_ptr<serve::scheduler> scheduler;  // made at the first load, outlives the device
    // Versions ordered into its memory and not there yet; of these, those that its requests wait
    // for: no step is planned before they are there.
    std::set<serve::variant_id> arriving;
    std::set<serve::variant_id> awaited;
    bool shares_out = false;  // an emptier lane has come
    bool in_flight = false;
    std::uint64_t step = 0;  // number of the step in flight
    int step_rows = 0;       // of it
    // The step after it, where one was sent ahead.
    struct step_ahead {
      std::uint64_t number = 0;
      int rows = 0;
      bool withdrawn = false;  // asked for; it may have begun
    };
    std::optional<step_ahead> ahead;
    serve::step_pace pace;  // of this device, in this life
    caf::actor_clock::time_point step_began{};
    caf::actor_clock::time_point lost_at{};  // since when requests here wait for a device
    std::uint64_t steps = 0;
    std::uint64_t rows = 0;
    std::int64_t busy_ns = 0;
    std::int64_t step_ns = 0;       // of the newest step
    std::int64_t busy_told_ns = 0;  // to the coordinator, with the step in flight; only grows
  };
  struct live_request {
    gateway_actor origin;
    std::string lane;
    serve::variant_id variant = 0;
    std::vector<serve::output_text> texts;  // by choice; empty when no text is wanted
    std::vector<char> open;                 // by choice: not finished yet
    int open_count = 0;
    std::int64_t tokens_most = 0;  // prompt and generated: what a lane must have room for
    serve::time_ns arrived = 0;
    bool first_token = false;                 // it is out
    std::vector<serve::time_ns> last_tokens;  // when, by choice; 0: none yet
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
  coordinator_actor coordinator;
  lease::policy_settings policy;
  serve::latency_window latencies;
  std::map<std::string, lane> lanes;  // by device name
  request_map requests;
  std::set<std::string> wait_for_blocks;  // lanes, until others have copied what they were lent
  serve::version_book versions;
  std::map<serve::variant_id, publication> publications;
  std::vector<gateway_actor> subscribers;
  std::vector<error> failures;
  std::uint64_t devices_lost = 0;
  caf::actor_clock::time_point reported{};
  bool report_due = false;  // a change is not told yet
  bool ticking = false;
  caf::actor_clock::time_point tick_due{};

  static inline const char* name = "serve_coordinator";
};

serve_coordinator_actor::behavior_type serve_coordinator(
    serve_coordinator_actor::stateful_pointer<serve_state> self, serve_options options,
    coordinator_actor coordinator);

}  // namespace tandem::actors
