#include "actors/gateway.hpp"

#include "actors/fault.hpp"

#include <utility>

namespace tandem::actors {
namespace {

using self_pointer = gateway_actor::stateful_pointer<gateway_state>;
using seconds = std::chrono::duration<double>;

constexpr auto order_deadline = std::chrono::seconds(10);

void observe(self_pointer self, gateway_state::waiting& request,
             const serve::generation_delta& delta) {
  auto& board = *self->state.board;
  const auto now = self->clock().now();
  if (!delta.tokens.empty()) {
    auto& last = request.last_token[static_cast<std::size_t>(delta.choice)];
    if (last == caf::actor_clock::time_point{}) {
      board.time_to_first_token.observe(seconds(now - request.arrived).count());
      board.queue_time.observe(static_cast<double>(delta.queued_ns) * 1e-9);
    } else {
      board.inter_token.observe(seconds(now - last).count());
    }
    last = now;
    board.generation_tokens.add(static_cast<double>(delta.tokens.size()));
  }
  switch (delta.finish) {
    case serve::finish_reason::none:
      return;
    case serve::finish_reason::stop:
      board.finished_stop.add(1);
      break;
    case serve::finish_reason::length:
      board.finished_length.add(1);
      break;
    case serve::finish_reason::error:
      board.finished_error.add(1);
      break;
    case serve::finish_reason::cancelled:
      board.finished_cancelled.add(1);
      break;
  }
}

void carry(self_pointer self, serve::generation_delta delta) {
  auto& state = self->state;
  auto it = state.requests.find(delta.id);
  if (it == state.requests.end()) return;  // withdrawn meanwhile
  auto& request = it->second;
  observe(self, request, delta);
  if (delta.finish == serve::finish_reason::error)
    request.open_choices = 0;
  else if (delta.finish != serve::finish_reason::none)
    --request.open_choices;
  const auto to = request.to;
  if (request.open_choices == 0) {
    auto& board = *state.board;
    board.prompt_tokens.add(delta.prompt_tokens);
    board.request_time.observe(seconds(self->clock().now() - request.arrived).count());
    state.requests.erase(it);
    --board.requests_inside;
  }
  to(std::move(delta));
}

// What the coordinator refused, or that there was none to answer.
error from_coordinator(const caf::error& why) {
  if (is_refusal(why)) return from_caf(why);
  return {errc::unavailable,
          "the coordinator did not answer (it may be starting again): try again in a second", ""};
}

void fail_all(self_pointer self, const error& why) {
  auto waiting = std::exchange(self->state.requests, {});
  for (auto& [id, request] : waiting) {
    serve::generation_delta last;
    last.id = id;
    last.finish = serve::finish_reason::error;
    last.failure = why;
    --self->state.board->requests_inside;
    request.to(std::move(last));
  }
}

}  // namespace

gateway_board::gateway_board()
    : time_to_first_token(
          registry.add_histogram("tandem_time_to_first_token_seconds",
                                 "From a request's arrival to its first token, queue included.",
                                 metrics::latency_bounds())),
      inter_token(registry.add_histogram("tandem_inter_token_latency_seconds",
                                         "Between two tokens of one choice.",
                                         metrics::token_latency_bounds())),
      queue_time(registry.add_histogram("tandem_queue_time_seconds",
                                        "From a request's arrival to its first step.",
                                        metrics::latency_bounds())),
      request_time(registry.add_histogram("tandem_request_duration_seconds",
                                          "From a request's arrival to its end.",
                                          metrics::latency_bounds())),
      prompt_tokens(
          registry.add_counter("tandem_prompt_tokens_total", "Prompt tokens of ended requests.")),
      generation_tokens(
          registry.add_counter("tandem_generation_tokens_total", "Tokens sent to clients.")),
      finished_stop(finished("stop")),
      finished_length(finished("length")),
      finished_error(finished("error")),
      finished_cancelled(finished("cancelled")) {}

metrics::counter& gateway_board::finished(const char* reason) {
  return registry.add_counter("tandem_choices_finished_total",
                              "Choices that ended, by reason; a failed or withdrawn request once.",
                              {{"reason", reason}});
}

std::optional<serve_report> gateway_board::newest() const {
  const std::lock_guard lock(mutex_);
  return newest_;
}

void gateway_board::put(serve_report report) {
  const std::lock_guard lock(mutex_);
  newest_ = std::move(report);
  if (listener_) listener_();
}

void gateway_board::on_report(std::function<void()> listener) {
  const std::lock_guard lock(mutex_);
  listener_ = std::move(listener);
}

gateway_actor::behavior_type gateway(self_pointer self, serve_coordinator_actor serve_coordinator,
                                     std::shared_ptr<gateway_board> board,
                                     coordinator_actor coordinator) {
  keep_exception_text(self);
  self->state.coordinator = std::move(coordinator);
  self->state.board = std::move(board);
  self->state.serve_coordinator = std::move(serve_coordinator);
  self->monitor(self->state.serve_coordinator);
  self->set_down_handler([=](const caf::down_msg& down) {
    fail_all(self, {errc::unavailable,
                    "the serve coordinator died: " + from_caf(down.reason).detail, ""});
  });
  self->send(self->state.serve_coordinator, subscribe{});
  // CAF tries them in this order: what comes most often stands first.
  return {
      [=](deltas& fact) {
        for (auto& delta : fact.list) carry(self, std::move(delta));
      },
      [=](serve_report& fact) { self->state.board->put(std::move(fact)); },
      [=](submit& order) {
        auto& state = self->state;
        gateway_state::waiting request;
        request.to = std::move(order.to);
        request.arrived = self->clock().now();
        request.last_token.resize(static_cast<std::size_t>(order.request.choices));
        request.open_choices = order.request.choices;
        state.requests.emplace(order.request.id, std::move(request));
        self->send(state.serve_coordinator, generate{std::move(order.request)});
      },
      [=](const withdraw& order) {
        auto& state = self->state;
        if (state.requests.erase(order.id) == 0) return;
        --state.board->requests_inside;
        state.board->finished_cancelled.add(1);
        self->send(state.serve_coordinator, cancel_request{order.id});
      },
      [=](submit_assign& order) {
        self->request(self->state.coordinator, order_deadline, order.order)
            .then(
                [answer = order.answer](lease::lease& now) { answer(std::move(now)); },
                [answer = order.answer](const caf::error& why) { answer(from_coordinator(why)); });
      },
      [=](submit_policy& order) {
        self->request(self->state.coordinator, order_deadline, set_policy{order.to})
            .then(
                [answer = order.answer](const lease::policy_settings& now) { answer(now); },
                [answer = order.answer](const caf::error& why) { answer(from_coordinator(why)); });
      },
      [=](coordinator_changed& fact) { self->state.coordinator = std::move(fact.now); },
  };
}

}  // namespace tandem::actors
