// The gateway actor: the doors' one voice inside. Carries requests to the serve coordinator and
// deltas back to whoever waits, counts, and keeps the newest report for whoever asks. When the
// serve coordinator is lost, its requests wait for the next one, which is told what their clients
// have: to them a pause, never a gap or a repeat.
#pragma once

#include "actors/messages.hpp"
#include "runtime/metrics.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace tandem::actors {

// What the gateway actor shares with the threads of the HTTP server: the newest report, the number
// of requests inside, and the engine's metrics.
class gateway_board {
 public:
  gateway_board();

  std::optional<serve_report> newest() const;
  void put(serve_report report);
  // Called after each `put`, from the gateway actor's thread; empty: nobody.
  void on_report(std::function<void()> listener);

  std::atomic<int> requests_inside{0};
  std::atomic<bool> is_lost{false};  // no serve coordinator has told how it goes

  metrics::registry registry;
  metrics::histogram& time_to_first_token;
  metrics::histogram& inter_token;
  metrics::histogram& queue_time;
  metrics::histogram& request_time;
  metrics::counter& prompt_tokens;
  metrics::counter& generation_tokens;
  metrics::counter& finished_stop;
  metrics::counter& finished_length;
  metrics::counter& finished_error;
  metrics::counter& finished_cancelled;

 private:
  metrics::counter& finished(const char* reason);

  mutable std::mutex mutex_;
  std::optional<serve_report> newest_;
  std::function<void()> listener_;
};

struct gateway_state {
  using time_point = caf::actor_clock::time_point;
  struct waiting {
    delta_handler to;
    serve::generation_request request;
    std::vector<sent_choice> sent;  // to its client, by choice
    std::int64_t queued_ns = 0;     // as its client was told, like the next two
    int cached_tokens = 0;
    std::uint64_t weights_version = 0;
    bool is_given = false;  // somebody runs it
    bool again = false;     // another than the first, who has sent nothing yet
    time_point waits{};     // for somebody who can
    time_point arrived{};
    std::vector<time_point> last_token;  // by choice; epoch: none yet
    int open_choices = 0;
  };
  std::shared_ptr<gateway_board> board;
  serve_coordinator_actor serve_coordinator;  // empty: lost, or not found yet
  error lost_why;
  coordinator_actor coordinator;
  std::map<serve::request_id, waiting> requests;  // oldest first
  bool looking = false;

  // Longer than a head takes to start again; shorter than clients wait for a word.
  static constexpr std::chrono::seconds patience{30};
  static inline const char* name = "gateway";
};

// Both may be empty: of a node that finds them at its head, or never needs the second.
gateway_actor::behavior_type gateway(gateway_actor::stateful_pointer<gateway_state> self,
                                     serve_coordinator_actor serve_coordinator,
                                     std::shared_ptr<gateway_board> board,
                                     coordinator_actor coordinator);

}  // namespace tandem::actors
