#include "gateway/actor_engine.hpp"

#include "gateway/engine_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <utility>

namespace tandem::gateway {
namespace {

serve::time_ns now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             caf::actor_clock::clock_type::now().time_since_epoch())
      .count();
}

// All but the weights is the base's.
std::shared_ptr<const served_model> version_of(const served_model& base,
                                               const actors::served_version& version) {
  auto model = std::make_shared<served_model>(base);
  model->id = version.name;
  model->parent = base.id;
  model->job = version.job;
  model->created = version.published_at;
  model->weights_version = version.version;
  model->devices = version.devices;
  return model;
}

serve::request_id drawn_id() {
  std::random_device random;
  return (static_cast<serve::request_id>(random()) << 32U) | random();
}

void refuse(serve::request_id id, delta_sink& sink, error why) {
  serve::generation_delta last;
  last.id = id;
  last.finish = serve::finish_reason::error;
  last.failure = std::move(why);
  sink.on_delta(std::move(last));
}

}  // namespace

actor_engine::actor_engine(actors::gateway_actor door, std::shared_ptr<actors::gateway_board> board,
                           int inside_max, std::chrono::milliseconds request_timeout)
    : door_(std::move(door)),
      board_(std::move(board)),
      inside_max_(inside_max),
      request_timeout_(request_timeout),
      next_id_(drawn_id()) {}

serve::request_id actor_engine::submit(serve::generation_request request,
                                       std::shared_ptr<delta_sink> sink) {
  const auto id = next_id_++;
  request.id = id;
  request.arrived = now_ns();
  if (request.deadline == 0)
    request.deadline =
        request.arrived +
        std::chrono::duration_cast<std::chrono::nanoseconds>(request_timeout_).count();
  if (state() != readiness::ready) {
    refuse(id, *sink, {errc::unavailable, state_detail(), ""});
    return id;
  }
  if (board_->requests_inside.fetch_add(1) >= inside_max_) {
    --board_->requests_inside;
    refuse(id, *sink,
           {errc::overloaded,
            fmt::format("{} requests are running or queued already; try again "
                        "in a moment",
                        inside_max_),
            ""});
    return id;
  }
  caf::anon_send(door_, actors::submit{std::move(request), [sink](serve::generation_delta delta) {
                                         sink->on_delta(std::move(delta));
                                       }});
  return id;
}

void actor_engine::cancel(serve::request_id id) { caf::anon_send(door_, actors::withdraw{id}); }

std::vector<std::shared_ptr<const served_model>> actor_engine::models() const {
  const auto base = model_.load();
  if (!base) return {};
  auto report = board_->newest();
  const std::lock_guard lock(models_mutex_);
  if (models_.empty() || models_.front() != base || (report && report->versions != versions_)) {
    versions_ = report ? std::move(report->versions) : std::vector<actors::served_version>{};
    models_ = {base};
    for (const auto& version : versions_) models_.push_back(version_of(*base, version));
  }
  return models_;
}

readiness actor_engine::state() const {
  if (draining_) return readiness::draining;
  if (!model_.load() || board_->is_lost) return readiness::starting;
  const auto report = board_->newest();
  // A device that died is started again: what comes meanwhile waits for it, as what was there does.
  const bool comes_back = report && !report->lanes.empty() && report->failures.empty();
  const bool alive =
      comes_back || (report && std::any_of(report->lanes.begin(), report->lanes.end(),
                                           [](const auto& l) { return l.ready; }));
  return alive ? readiness::ready : readiness::failed;
}

std::string actor_engine::state_detail() const {
  switch (state()) {
    case readiness::ready:
      return "ready";
    case readiness::starting:
      return model_.load() ? "the head is not to be had: what runs waits for it, up to 30 s"
                           : "the model is being loaded";
    case readiness::draining:
      return "shutting down: running requests end, new ones are refused";
    case readiness::failed:
      break;
  }
  const auto report = board_->newest();
  if (report && !report->failures.empty())
    return "no device can serve: " + report->failures.back().detail;
  return "the device died and is being started again";
}

void actor_engine::publish(std::shared_ptr<const served_model> model) {
  model_.store(std::move(model));
}

std::string actor_engine::metrics() const {
  return board_->registry.text() + metrics_text(board_->newest(), board_->requests_inside);
}

std::string actor_engine::status_json() const {
  return status_text(state(), state_detail(), models(), board_->newest(), board_->requests_inside);
}

}  // namespace tandem::gateway
