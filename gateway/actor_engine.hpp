// The engine as the HTTP side sees it, with real actors behind: a thin door to the gateway actor.
#pragma once

#include "actors/gateway.hpp"
#include "gateway/engine.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace tandem::gateway {

class actor_engine final : public engine {
 public:
  // Ids begin anywhere: several doors give theirs to one serve coordinator.
  // `inside_max`: requests accepted and not yet ended; more are refused as overloaded before they
  // reach a mailbox.
  actor_engine(actors::gateway_actor door, std::shared_ptr<actors::gateway_board> board,
               int inside_max, std::chrono::milliseconds request_timeout);

  serve::request_id submit(serve::generation_request request,
                           std::shared_ptr<delta_sink> sink) override;
  void cancel(serve::request_id id) override;
  std::vector<std::shared_ptr<const served_model>> models() const override;
  readiness state() const override;
  std::string state_detail() const override;
  std::string metrics() const override;
  std::string status_json() const override;

  // Once, when the model is up: from now on the engine is ready.
  void publish(std::shared_ptr<const served_model> model);
  void drain() { draining_ = true; }
  int requests_inside() const { return board_->requests_inside; }

 private:
  using model_list = std::vector<std::shared_ptr<const served_model>>;

  actors::gateway_actor door_;
  std::shared_ptr<actors::gateway_board> board_;
  int inside_max_;
  std::chrono::milliseconds request_timeout_;
  std::atomic<serve::request_id> next_id_;
  std::atomic<bool> draining_{false};
  std::atomic<std::shared_ptr<const served_model>> model_;

  // The base and its versions, made again when the report names others.
  mutable std::mutex models_mutex_;
  mutable std::vector<actors::served_version> versions_;
  mutable model_list models_;
};

}  // namespace tandem::gateway
