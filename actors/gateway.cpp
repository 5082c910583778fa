#include "actors/gateway.hpp"

#include "actors/fault.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::actors {
namespace {

using self_pointer = gateway_actor::stateful_pointer<gateway_state>;
using seconds = std::chrono::duration<double>;

constexpr auto order_deadline = std::chrono::seconds(10);
constexpr auto look_period = std::chrono::milliseconds(100);

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

// --- requests on their way ----------------------------------------------------------------------

void keep_looking(self_pointer self) {
  if (std::exchange(self->state.looking, true)) return;
  self->delayed_send(self, look_period, look_at_waiting{});
}

// What the client has by now.
void remember(gateway_state::waiting& request, const serve::generation_delta& delta) {
  auto& sent = request.sent[static_cast<std::size_t>(delta.choice)];
  sent.tokens.insert(sent.tokens.end(), delta.tokens.begin(), delta.tokens.end());
  sent.ended = delta.finish != serve::finish_reason::none;
  request.queued_ns = delta.queued_ns;
  request.cached_tokens = delta.cached_tokens;
  request.weights_version = delta.weights_version;
  request.again = false;
}

// Who goes on with a request may not have its devices or versions yet.
bool may_pass(const gateway_state::waiting& request, const serve::generation_delta& delta) {
  if (!request.again || !delta.failure) return false;
  return delta.failure->code == errc::unavailable || delta.failure->code == errc::not_found;
}

void carry(self_pointer self, serve::generation_delta delta) {
  auto& state = self->state;
  auto it = state.requests.find(delta.id);
  if (it == state.requests.end()) return;  // withdrawn meanwhile
  auto& request = it->second;
  if (!request.is_given || static_cast<std::size_t>(delta.choice) >= request.sent.size()) return;
  if (may_pass(request, delta) && self->clock().now() - request.waits < state.patience) {
    request.is_given = false;
    return keep_looking(self);
  }
  observe(self, request, delta);
  if (delta.finish == serve::finish_reason::error)
    request.open_choices = 0;
  else if (delta.finish != serve::finish_reason::none)
    --request.open_choices;
  if (request.open_choices > 0) {
    remember(request, delta);
    return request.to(std::move(delta));
  }
  const auto to = std::move(request.to);
  auto& board = *state.board;
  board.prompt_tokens.add(delta.prompt_tokens);
  board.request_time.observe(seconds(self->clock().now() - request.arrived).count());
  state.requests.erase(it);
  --board.requests_inside;
  to(std::move(delta));
}

std::int64_t ns(caf::actor_clock::duration_type length) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(length).count();
}

void give(self_pointer self, gateway_state::waiting& request) {
  auto& state = self->state;
  if (!state.serve_coordinator) return keep_looking(self);
  const auto now = self->clock().now();
  generate order;
  order.request = request.request;
  order.waited_ns = ns(now - request.arrived);
  if (request.request.deadline != 0)
    order.left_ns =
        std::max<std::int64_t>(request.request.deadline - ns(now.time_since_epoch()), 1);
  if (request.again) order.sent = request.sent;
  order.queued_ns = request.queued_ns;
  order.cached_tokens = request.cached_tokens;
  order.weights_version = request.weights_version;
  request.is_given = true;
  self->send(state.serve_coordinator, std::move(order));
}

void take(self_pointer self, submit& order) {
  auto& state = self->state;
  const auto choices = static_cast<std::size_t>(order.request.choices);
  gateway_state::waiting request;
  request.to = std::move(order.to);
  request.sent.resize(choices);
  request.arrived = request.waits = self->clock().now();
  request.last_token.resize(choices);
  request.open_choices = order.request.choices;
  request.again = !state.serve_coordinator;
  request.request = std::move(order.request);
  const auto id = request.request.id;
  give(self, state.requests.insert_or_assign(id, std::move(request)).first->second);
}

void withdraw_one(self_pointer self, serve::request_id id) {
  auto& state = self->state;
  if (state.requests.erase(id) == 0) return;
  --state.board->requests_inside;
  state.board->finished_cancelled.add(1);
  if (state.serve_coordinator) self->send(state.serve_coordinator, cancel_request{id});
}

// --- who serves ---------------------------------------------------------------------------------

void serve_coordinator_lost(self_pointer self, const caf::error& why) {
  auto& state = self->state;
  state.serve_coordinator = nullptr;
  state.board->is_lost = true;
  state.lost_why = {errc::unavailable,
                    fmt::format("the serve coordinator is gone ({}) and no other has gone on with "
                                "this request in {} s: send it again",
                                from_caf(why).detail, state.patience.count()),
                    ""};
  const auto now = self->clock().now();
  for (auto& [id, request] : state.requests) {
    if (!std::exchange(request.again, true)) request.waits = now;
    request.is_given = false;
  }
  if (!state.requests.empty()) {
    log_warning("the serve coordinator is gone ({}): {} requests wait for the next one",
                from_caf(why).detail, state.requests.size());
    keep_looking(self);
  }
}

void follow(self_pointer self, serve_coordinator_actor now) {
  auto& state = self->state;
  if (!now || now == state.serve_coordinator) return;
  if (state.serve_coordinator) {
    const auto before = state.serve_coordinator;
    self->demonitor(before.address());
    serve_coordinator_lost(self, to_caf({errc::unavailable, "another has taken its place", ""}));
  }
  state.serve_coordinator = std::move(now);
  self->monitor(state.serve_coordinator);
  self->send(state.serve_coordinator, subscribe{});
  for (auto& [id, request] : state.requests) give(self, request);
}

// One that was lost may have sent more than has come through.
bool is_from_who_serves(self_pointer self) {
  const auto& from = self->current_sender();
  const auto& now = self->state.serve_coordinator;
  return from && now && from->id() == now.id() && from->node() == now.node();
}

void look(self_pointer self) {
  auto& state = self->state;
  state.looking = false;
  const auto now = self->clock().now();
  std::vector<serve::generation_delta> late;
  for (auto& [id, request] : state.requests) {
    if (request.is_given) continue;
    const auto deadline = request.request.deadline;
    const bool out_of_time = deadline != 0 && ns(now.time_since_epoch()) >= deadline;
    if (!out_of_time && now - request.waits < state.patience) {
      give(self, request);
      if (!request.is_given) keep_looking(self);
      continue;
    }
    serve::generation_delta last;
    last.id = id;
    last.finish = serve::finish_reason::error;
    last.failure = state.lost_why;
    if (out_of_time)
      last.failure =
          error{errc::timed_out,
                "the request's deadline passed while it waited for a serve coordinator", ""};
    late.push_back(std::move(last));
    request.is_given = true;  // as far as carry is concerned
    request.again = false;
  }
  for (auto& last : late) carry(self, std::move(last));
}

// What the coordinator refused, or that there was none to answer.
error from_coordinator(const caf::error& why) {
  if (is_refusal(why)) return from_caf(why);
  return {errc::unavailable,
          "the coordinator did not answer (it may be starting again): try again in a second", ""};
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
  self->state.board->is_lost = true;
  self->state.lost_why = {errc::unavailable, "no serve coordinator has been found: try again", ""};
  self->set_down_handler([=](const caf::down_msg& down) {
    const auto& now = self->state.serve_coordinator;
    if (now && now.address() == down.source) serve_coordinator_lost(self, down.reason);
  });
  follow(self, std::move(serve_coordinator));
  // CAF tries them in this order: what comes most often stands first.
  return {
      [=](deltas& fact) {
        if (!is_from_who_serves(self)) return;
        for (auto& delta : fact.list) carry(self, std::move(delta));
      },
      [=](serve_report& fact) {
        if (!is_from_who_serves(self)) return;
        self->state.board->put(std::move(fact));
        self->state.board->is_lost = false;
      },
      [=](submit& order) { take(self, order); },
      [=](const withdraw& order) { withdraw_one(self, order.id); },
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
      [=](serve_coordinator_changed& fact) { follow(self, std::move(fact.now)); },
      [=](look_at_waiting) { look(self); },
  };
}

}  // namespace tandem::actors
