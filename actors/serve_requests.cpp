// Requests as they come to the serve coordinator: new ones, and those that another one had begun
// before it was lost, of which a gateway says what their clients have. Who asks and is gone takes
// its requests along.
#include "actors/fault.hpp"
#include "actors/serve_parts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace tandem::actors::serving {
namespace {

// Which weights a request's model means; nothing for a name that is no more.
std::optional<serve::variant_id> variant_of(const serve_state& state, const std::string& model) {
  if (const auto named = state.versions.named(model)) return named;
  if (model.empty() || model == state.options.model) return serve::variant_id{0};
  return std::nullopt;
}

live_request live_of(const serve_state& state, const generate& order, const gateway_actor& origin,
                     serve::time_ns now) {
  const auto& request = order.request;
  const auto choices = static_cast<std::size_t>(request.choices);
  live_request live;
  live.variant = request.variant;
  live.origin = origin;
  live.open.assign(choices, 1);
  live.open_count = request.choices;
  live.tokens_most =
      static_cast<std::int64_t>(request.prompt.size()) + std::max(request.stops.max_tokens, 0);
  live.arrived = now - order.waited_ns;
  live.last_tokens.assign(choices, 0);
  live.min_tokens = request.stops.min_tokens;
  live.want_logprobs = request.sampling.logprobs >= 0;
  if (request.want_text && state.options.tokenizer)
    for (std::size_t i = 0; i < choices; ++i)
      live.texts.emplace_back(state.options.tokenizer, request.stops.stop,
                              request.stops.include_stop, request.skip_special_tokens);
  return live;
}

// Where it stands: the text of what was sent is behind it, and the choices that ended have.
void catch_up(live_request& live, const std::vector<sent_choice>& sent) {
  for (std::size_t choice = 0; choice < sent.size(); ++choice) {
    live.first_token = live.first_token || !sent[choice].tokens.empty();
    if (sent[choice].ended) {
      live.open[choice] = 0;
      --live.open_count;
    }
    if (live.texts.empty()) continue;
    int count = 0;
    for (const auto token : sent[choice].tokens)
      live.texts[choice].add(token, ++count >= live.min_tokens);
  }
}

// Why this lane cannot go on with it.
std::optional<error> refusal(const serve_state& state, const lane& l, const generate& order) {
  const auto& request = order.request;
  if (request.prompt.empty() || order.sent.size() != static_cast<std::size_t>(request.choices) ||
      std::ranges::all_of(order.sent, &sent_choice::ended))
    return error{errc::internal, "a request to go on with does not say what its client has", ""};
  if (l.scheduler->knows(request.id))
    return error{errc::unavailable, "what it ran on before is ending it: try again at once", ""};
  const auto* version = state.versions.find(request.variant);
  const auto number = version ? version->version : l.model ? l.model->weights_version : 0;
  if (order.weights_version != 0 && number != order.weights_version)
    return error{errc::unavailable,
                 fmt::format("it began with weights version {}; version {} is served now: send it "
                             "again",
                             order.weights_version, number),
                 ""};
  for (const auto& choice : order.sent) {
    const auto length = static_cast<std::int64_t>(request.prompt.size() + choice.tokens.size());
    if (!choice.ended && length >= l.scheduler->longest_sequence())
      return error{errc::context_length_exceeded,
                   fmt::format("device {} has room for sequences of {} tokens, and one of this "
                               "request has {}",
                               l.held.device, l.scheduler->longest_sequence(), length),
                   ""};
  }
  return std::nullopt;
}

// As a scheduler that knew it would hand it over.
serve::handed_request handed(const generate& order, serve::time_ns now) {
  serve::handed_request made;
  made.request = order.request;
  made.added = now - order.waited_ns;
  made.started = made.began =
      std::ranges::any_of(order.sent, [](const auto& choice) { return !choice.tokens.empty(); });
  made.queued_ns = order.queued_ns;
  made.cached_tokens = order.cached_tokens;
  for (const auto& choice : order.sent)
    made.choices.push_back({choice.tokens, choice.ended, !choice.tokens.empty(), nullptr});
  return made;
}

}  // namespace

void send_failure(self_pointer self, const gateway_actor& origin, serve::request_id id,
                  const error& why) {
  serve::generation_delta last;
  last.id = id;
  last.finish = serve::finish_reason::error;
  last.failure = why;
  self->send(origin, deltas{{std::move(last)}});
}

serve_state::request_map::iterator end_request(serve_state& state,
                                               serve_state::request_map::iterator it) {
  if (auto& leaving = state.lanes.at(it->second.lane).leaving) ++leaving->done.finished;
  state.versions.request_ended(it->second.variant);
  return state.requests.erase(it);
}

void accept(self_pointer self, generate& order, const gateway_actor& origin) {
  auto& state = self->state;
  auto& request = order.request;
  const auto id = request.id;
  // Its gateway was cut off from here and is back: what it has of the request counts.
  if (state.requests.contains(id)) cancel(self, id);
  const auto variant = variant_of(state, request.model);
  if (!variant)
    return send_failure(
        self, origin, id,
        {errc::not_found, "The model '" + request.model + "' is not served any more.", "model"});
  request.variant = *variant;
  auto* l = choose_lane(state, request);
  if (!l)
    return send_failure(
        self, origin, id,
        {errc::unavailable,
         "no device has " + (*variant == 0 ? "the model" : "'" + request.model + "'") +
             " in its memory yet",
         ""});
  const auto now = now_ns(self);
  order.waited_ns = std::max(order.waited_ns, std::int64_t{0});
  request.arrived = now - order.waited_ns;
  request.deadline = order.left_ns == 0 ? 0 : now + order.left_ns;
  auto live = live_of(state, order, origin, now);
  live.lane = l->held.device;
  if (l->resting && l->scheduler->idle()) l->lost_at = self->clock().now();
  if (order.sent.empty()) {
    if (auto added = l->scheduler->add(std::move(request), now); !added)
      return send_failure(self, origin, id, added.error());
  } else {
    if (const auto why = refusal(state, *l, order)) return send_failure(self, origin, id, *why);
    catch_up(live, order.sent);
    l->scheduler->adopt(handed(order, now));
  }
  state.requests.emplace(id, std::move(live));
  state.versions.request_began(*variant);
  if (l->arriving.contains(*variant)) l->awaited.insert(*variant);
  pump(self, *l);
  keep_ticking(self);
}

void cancel(self_pointer self, serve::request_id id) {
  auto& state = self->state;
  auto it = state.requests.find(id);
  if (it == state.requests.end()) return;
  auto& l = state.lanes.at(it->second.lane);
  l.scheduler->cancel(id);
  end_request(state, it);
  pump(self, l);
  retire_versions(self);
  if (l.leaving) look_at_departures(self);
  if (all_idle(state)) report(self);
}

void add_gateway(self_pointer self, gateway_actor who) {
  auto& known = self->state.subscribers;
  if (std::ranges::find(known, who) == known.end()) {
    self->monitor(who);
    known.push_back(std::move(who));
  }
  report(self);
}

bool gateway_down(self_pointer self, const caf::actor_addr& who) {
  auto& state = self->state;
  const auto known = std::ranges::find_if(state.subscribers,
                                          [&](const auto& one) { return one.address() == who; });
  if (known == state.subscribers.end()) return false;
  state.subscribers.erase(known);
  std::vector<serve::request_id> its;
  for (const auto& [id, live] : state.requests)
    if (live.origin.address() == who) its.push_back(id);
  for (const auto id : its) cancel(self, id);
  if (!its.empty()) log_info("a gateway is gone, and {} requests with it", its.size());
  return true;
}

}  // namespace tandem::actors::serving
