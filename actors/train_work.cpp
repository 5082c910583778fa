// Whose turn it is: the phase's items go to the devices that work now, as the work book says.
#include "actors/fault.hpp"
#include "actors/train_flow.hpp"
#include "runtime/log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::actors {
namespace {

constexpr auto drop_deadline = std::chrono::seconds(30);
// All ranges of an order; each has a deadline of its own (courier.cpp).
constexpr auto transfer_deadline = std::chrono::minutes(30);

using order_kind = train::order_kind;

std::int64_t now_ms(train_self self) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             self->clock().now().time_since_epoch())
      .count();
}

int rank_of(const train_state& state, const std::string& device) {
  for (std::size_t rank = 0; rank < state.members.size(); ++rank)
    if (state.members[rank].now.device == device) return static_cast<int>(rank);
  return -1;
}

void finish_phase(train_self self) {
  auto done = std::exchange(self->state.under_way, {});
  if (self->state.work->phase() == order_kind::update) self->state.work->parameters_changed();
  done.then(std::move(done.outcomes));
}

void look_further(train_self self) {
  auto& state = self->state;
  if (state.under_way.then && state.work->done()) return finish_phase(self);
  deal(self);
}

void item_dropped(train_self self, int rank) {
  auto& state = self->state;
  state.to_be_dropped[static_cast<std::size_t>(rank)] = false;
  state.work->dropped(rank);
  look_further(self);
}

using place = train_state::place;

place& place_of(train_state& state, int rank) {
  return state.places[static_cast<std::size_t>(rank)];
}

// Takes the rank's item back; it is dealt anew when nothing of it runs there any more. What is on
// its way arrives first: bounded by the couriers' deadlines.
void send_drop(train_self self, int rank) {
  auto& state = self->state;
  if (place_of(state, rank) == place::brings || place_of(state, rank) == place::goes_home) {
    state.to_be_dropped[static_cast<std::size_t>(rank)] = true;
    return;
  }
  const auto& member = state.members[static_cast<std::size_t>(rank)];
  self->request(member.device, drop_deadline, drop_training{member.now.at, state.options.job})
      .then(
          [=, at = state.incarnation] {
            auto& now = self->state;
            if (now.incarnation != at) return;
            // It was done before it heard of this, and what came of it is on its way.
            if (place_of(now, rank) == place::goes_home)
              now.to_be_dropped[static_cast<std::size_t>(rank)] = true;
            else
              item_dropped(self, rank);
          },
          [=, at = state.incarnation](const caf::error& why) {
            if (self->state.incarnation == at) start_over(self, from_caf(why));
          });
}

void item_done(train_self self, int rank, train::outcome outcome) {
  auto& state = self->state;
  place_of(state, rank) = place::none;
  const auto home = static_cast<std::size_t>(outcome.home);
  if (state.work->finished(rank)) state.under_way.outcomes.at(home) = std::move(outcome);
  if (state.to_be_dropped[static_cast<std::size_t>(rank)]) return item_dropped(self, rank);
  look_further(self);
}

// What came of an order elsewhere is done once it is home: it cannot be dropped any more.
void take_home(train_self self, int rank, train::outcome outcome) {
  auto& state = self->state;
  const auto what =
      train::yields(state.layout, outcome.kind, outcome.home, rank, shares_memory(state, rank));
  if (what.empty()) return item_done(self, rank, std::move(outcome));
  place_of(state, rank) = place::goes_home;
  self->request(state.members[static_cast<std::size_t>(rank)].courier, transfer_deadline,
                take_ranges{what, couriers(state)})
      .then(
          [=, at = state.incarnation](const ranges_moved&) {
            if (self->state.incarnation == at) item_done(self, rank, outcome);
          },
          [=, at = state.incarnation](const caf::error& why) {
            if (self->state.incarnation == at) transfer_failed(self, rank, from_caf(why));
          });
}

void item_failed(train_self self, int rank, order_kind kind, lease::epoch tenure,
                 const caf::error& failure) {
  auto& state = self->state;
  const auto why = from_caf(failure);
  auto& member = state.members[static_cast<std::size_t>(rank)];
  place_of(state, rank) = place::none;
  if (why.code == errc::cancelled) return;  // dropped: that has an answer of its own
  if (why.code == errc::conflict && why.param == lease::tenure_ended) {
    // The device went before the order came; we may hear of that later than the device did.
    if (tenure == member.tenure) {
      member.tenure = 0;
      state.work->revoke(rank, now_ms(self));
    }
    state.work->refused(rank);
    return look_further(self);
  }
  if (why.code == errc::conflict && kind == order_kind::publish) {
    // Streams still run on the other half.
    state.under_way.refusal = why;
    state.work->finished(rank);
    return look_further(self);
  }
  // What one device alone has begun to add up cannot be taken back by halves.
  if (failure == caf::sec::request_timeout && state.members.size() > 1) {
    log_warning(
        "job {}: device {} did not answer in {} s: its order is taken back", state.options.job,
        member.now.device,
        std::chrono::duration_cast<std::chrono::seconds>(state.options.order_deadline).count());
    if (state.work->drop(rank)) send_drop(self, rank);
    return;
  }
  order_failed(self, why);
}

void run_order(train_self self, const train::work_book::assignment& item) {
  auto& state = self->state;
  const auto& member = state.members[static_cast<std::size_t>(item.rank)];
  place_of(state, item.rank) = place::runs;
  train::order what;
  if (item.kind != order_kind::gather) what = state.under_way.make(item.home);
  what.kind = item.kind;
  what.home = item.home;
  what.job = state.options.job;
  self->request(member.device, state.options.order_deadline,
                run_training{member.tenure, std::move(what)})
      .then(
          [=, at = state.incarnation, rank = item.rank](train::outcome& outcome) {
            if (self->state.incarnation == at) take_home(self, rank, std::move(outcome));
          },
          [=, at = state.incarnation, rank = item.rank, kind = item.kind,
           tenure = member.tenure](const caf::error& why) {
            if (self->state.incarnation == at) item_failed(self, rank, kind, tenure, why);
          });
}

// First what the order needs of others' memory, then the order.
void send_order(train_self self, const train::work_book::assignment& item) {
  auto& state = self->state;
  const auto shares = shares_memory(state, item.rank);
  const auto what = train::needs(state.layout, item.kind, item.home, item.rank, shares);
  if (what.empty() && shares[static_cast<std::size_t>(item.home)]) return run_order(self, item);
  place_of(state, item.rank) = place::brings;
  self->request(state.members[static_cast<std::size_t>(item.rank)].courier, transfer_deadline,
                bring_ranges{item.kind, item.home, what, couriers(state)})
      .then(
          [=, at = state.incarnation](const ranges_moved&) {
            auto& now = self->state;
            if (now.incarnation != at) return;
            place_of(now, item.rank) = place::none;
            if (now.to_be_dropped[static_cast<std::size_t>(item.rank)])
              return item_dropped(self, item.rank);
            if (now.work->works(item.rank)) return run_order(self, item);
            now.work->refused(item.rank);  // the device went meanwhile
            look_further(self);
          },
          [=, at = state.incarnation, rank = item.rank](const caf::error& why) {
            if (self->state.incarnation == at) transfer_failed(self, rank, from_caf(why));
          });
}

}  // namespace

std::vector<bool> shares_memory(const train_state& state, int rank) {
  const auto own = static_cast<std::size_t>(rank);
  // GPUs are of one kind in a group: each reaches its own memory alone.
  const bool may = !state.options.context->devices_apart && !state.members[own].gpu;
  std::vector<bool> shares(state.members.size(), false);
  for (std::size_t peer = 0; peer < shares.size(); ++peer)
    shares[peer] = peer == own || (may && state.group[own] && state.group[peer]);
  return shares;
}

std::vector<courier_actor> couriers(const train_state& state) {
  std::vector<courier_actor> list;
  for (const auto& member : state.members) list.push_back(member.courier);
  return list;
}

std::vector<int> all_homes(const train_state& state) {
  std::vector<int> homes;
  for (int home = 0; home < std::ssize(state.members); ++home) homes.push_back(home);
  return homes;
}

void run_phase(train_self self, order_kind kind, std::vector<int> homes,
               std::function<train::order(int home)> make,
               std::function<void(std::vector<train::outcome>)> then) {
  auto& state = self->state;
  state.work->begin(kind, homes);
  state.under_way = {std::move(make), {}, {}, std::move(then)};
  state.under_way.outcomes.resize(state.members.size());
  deal(self);
}

void deal(train_self self) {
  auto& state = self->state;
  if (!state.work || !state.under_way.then || state.leaving) return;
  const auto now = state.work->next(now_ms(self));
  for (const auto& item : now.deal) send_order(self, item);
  for (const int rank : now.drop) send_drop(self, rank);
  if (now.look_again_ms == 0 || std::exchange(state.looks_again, true)) return;
  self->delayed_send(self, std::chrono::milliseconds(now.look_again_ms - now_ms(self)),
                     look_at_work{});
}

void granted(train_self self, const lease::lease& now) {
  auto& state = self->state;
  const int rank = rank_of(state, now.device);
  if (rank < 0) return;
  state.members[static_cast<std::size_t>(rank)].tenure = now.train_since;
  if (!state.work) return;  // devices open the job still
  state.work->grant(rank);
  deal(self);
}

void revoked(train_self self, const lease::lease& now) {
  auto& state = self->state;
  const int rank = rank_of(state, now.device);
  if (rank < 0) return;
  state.members[static_cast<std::size_t>(rank)].tenure = 0;
  if (!state.work) return;
  state.work->revoke(rank, now_ms(self));
  deal(self);
  leave_if_stranded(self);
  move_if_stranded(self);
}

bool is_stranded(const train_state& state) {
  if (state.leaving || !state.work || state.work->anyone_works()) return false;
  // Half an update has no checkpoint: it waits for a device, or ends with the process.
  return state.work->phase() != order_kind::update || state.work->done();
}

void leave_if_stranded(train_self self) {
  auto& state = self->state;
  if (state.wanted == train_state::wish::go_on || !is_stranded(state)) return;
  state.leaving = true;
  when_saved(self, [=] {
    save(self);
    when_saved(self, [=] { leave(self); });
  });
}

}  // namespace tandem::actors
