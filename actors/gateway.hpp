// The gateway actor: the doors' one voice inside. Carries requests to the serve coordinator and
// deltas back to whoever waits, counts, and keeps the newest report for whoever asks.
#pragma once

#include "actors/messages.hpp"
#include "runtime/metrics.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

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
  struct waiting {
    delta_handler to;
    caf::actor_clock::time_point arrived{};
    std::vector<caf::actor_clock::time_point> last_token;  // by choice; epoch: none yet
    int open_choices = 0;
  };
  std::shared_ptr<gateway_board> board;
  serve_coordinator_actor serve_coordinator;
  coordinator_actor coordinator;
  std::unordered_map<serve::request_id, waiting> requests;

  static inline const char* name = "gateway";
};

gateway_actor::behavior_type gateway(gateway_actor::stateful_pointer<gateway_state> self,
                                     serve_coordinator_actor serve_coordinator,
                                     std::shared_ptr<gateway_board> board,
                                     coordinator_actor coordinator);

}  // namespace tandem::actors
