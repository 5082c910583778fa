#include "actors/gpu.hpp"

#include "actors/fault.hpp"
#include "actors/gpu_parts.hpp"
#include "runtime/log.hpp"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

namespace tandem::actors {
namespace gpu_work {
namespace {

// A step that is to follow comes within a coordinator's turn, or there is none.
constexpr auto next_step_comes_within = std::chrono::milliseconds(3);

void note_training_piece(gpu_state& state, std::chrono::nanoseconds took) {
  auto& longest = state.training_piece_ns;
  longest = std::max<std::int64_t>(took.count(), longest - longest / 64);
}

void tell_first_piece(self_pointer self, bool of_step) {
  auto& state = self->state;
  if (!std::exchange(of_step ? state.serving_news : state.training_news, false)) return;
  if (auto lender = caf::actor_cast<coordinator_actor>(state.lender))
    self->send(lender, work_began{state.guard.now()});
}

bool may_train(const gpu_state& state) {
  const auto& held = state.guard.now();
  return state.training && lease::trains(held.held_as) && held.job() == state.training_job;
}

// Between two steps: is there room for a piece of training?
void await_step(self_pointer self) {
  auto& state = self->state;
  if (!may_train(state) || state.training_piece_ns <= state.training_gap_ns) return;
  state.awaits_step = true;
  self->delayed_send(self, next_step_comes_within, gap_over{++state.gaps});
}

void piece_done(self_pointer self, const gpu_state::piece& piece) {
  auto& state = self->state;
  if (piece.void_now || !piece.last) return;
  if (piece.of_step) {
    state.running = false;
    auto result = state.device->finish();
    state.drawn.clear();
    for (const auto& one : result.sampled) {
      auto& kept = state.drawn.emplace_back();
      kept.slot = one.slot;
      kept.token.id = one.token.id;
    }
    state.answer.deliver(std::move(result));
    if (!state.ahead) await_step(self);
    return;
  }
  state.training = false;
  auto outcome = state.device->finish_training();
  if (outcome)
    state.training_answer.deliver(*std::move(outcome));
  else
    state.training_answer.deliver(to_caf(outcome.error()));
}

bool has_work(const gpu_state& state) {
  return state.running || state.ahead || !state.errands.empty() ||
         (may_train(state) && !state.awaits_step);
}

result<void> begin_step(gpu_state& state, serve::step_plan plan, std::int64_t training_gap_ns) {
  const auto number = plan.number;
  if (auto begun = state.device->begin(std::move(plan)); !begun) return begun;
  state.running = true;
  state.step = number;
  state.awaits_step = false;
  state.training_gap_ns = training_gap_ns;
  return {};
}

// The draws it goes on from are there.
bool filled(const gpu_state& state, serve::step_plan& plan) {
  return plan.follows == state.step && fill_drawn(plan, state.drawn);
}

const error not_followed{errc::cancelled, "the step that this one follows was given up", ""};

void begin_step_ahead(gpu_state& state) {
  if (state.running || !state.ahead) return;
  auto next = *std::exchange(state.ahead, std::nullopt);
  if (!filled(state, next.plan)) {
    next.answer.deliver(to_caf(not_followed));
    return;
  }
  if (auto begun = begin_step(state, std::move(next.plan), next.training_gap_ns); !begun) {
    next.answer.deliver(to_caf(begun.error()));
    return;
  }
  state.answer = std::move(next.answer);
}

}  // namespace

void withdraw_step_ahead(gpu_state& state, const error& why) {
  if (auto ahead = std::exchange(state.ahead, std::nullopt)) ahead->answer.deliver(to_caf(why));
}

void give_up_step(self_pointer self, const error& why) {
  auto& state = self->state;
  state.device->reset();
  state.step = 0;
  state.drawn.clear();
  if (state.under_way && state.under_way->of_step) state.under_way->void_now = true;
  if (std::exchange(state.running, false)) state.answer.deliver(to_caf(why));
  withdraw_step_ahead(state, why);
}

void give_up_training(self_pointer self, const std::string& job, const error& why) {
  auto& state = self->state;
  if (!state.training || state.training_job != job) return;
  state.device->drop_training();
  if (state.under_way && !state.under_way->of_step) state.under_way->void_now = true;
  state.training = false;
  state.training_answer.deliver(to_caf(why));
}

void dismiss_courier(self_pointer self) {
  if (auto courier = std::exchange(self->state.courier, nullptr))
    self->send_exit(courier, caf::exit_reason::user_shutdown);
}

// With next_piece on its way nothing runs before it arrives: the mailbox is being looked at, or a
// piece still takes time.
void run_pieces(self_pointer self) {
  auto& state = self->state;
  while (!state.piece_due && has_work(state)) {
    if (!state.running && !state.errands.empty()) {
      run_errand(self);
      begin_step_ahead(state);  // errands go on a piece between two steps
      if (self->mailbox().empty()) continue;
      state.piece_due = true;
      self->send(self, next_piece{});
      return;
    }
    begin_step_ahead(state);
    if (!has_work(state)) return;
    gpu_state::piece piece;
    piece.of_step = state.running;
    tell_first_piece(self, piece.of_step);
    const auto began = self->clock().now();
    piece.last = !(piece.of_step ? state.device->advance() : state.device->advance_training());
    const auto time = state.device->piece_time();
    if (!piece.of_step)
      note_training_piece(state, time.count() > 0 ? time : self->clock().now() - began);
    if (time.count() > 0) {
      state.under_way = piece;
      state.piece_due = true;
      self->delayed_send(self, time, next_piece{});
      return;
    }
    piece_done(self, piece);
    if (self->mailbox().empty()) continue;
    state.piece_due = true;
    self->send(self, next_piece{});
  }
}

namespace {

// Goes on with what there is once this message is answered.
void look_soon(self_pointer self) {
  auto& state = self->state;
  if (state.piece_due || !has_work(state)) return;
  state.piece_due = true;
  self->send(self, next_piece{});
}

std::string went_to(const lease::lease& now) {
  return now.holder.empty() ? "the device was taken away" : "the device went to " + now.holder;
}

template <class T>
caf::result<T> answer_with(result<T> made) {
  if (!made) return to_caf(made.error());
  return *std::move(made);
}

}  // namespace
}  // namespace gpu_work

using namespace gpu_work;

gpu_actor::behavior_type gpu(self_pointer self, std::unique_ptr<serve::device> device) {
  keep_exception_text(self);
  self->state.device = std::move(device);
  self->state.device->attach_calling_thread();

  // CAF tries them in this order: what comes most often stands first.
  return {
      [=](next_piece) {
        auto& state = self->state;
        state.piece_due = false;
        if (const auto done = std::exchange(state.under_way, std::nullopt)) piece_done(self, *done);
        run_pieces(self);
      },
      [=](const gap_over& wait) {
        auto& state = self->state;
        if (!state.awaits_step || wait.number != state.gaps) return;
        state.awaits_step = false;
        run_pieces(self);
      },
      [=](run_step& order) -> caf::result<serve::step_result> {
        auto& state = self->state;
        if (auto fresh = self->state.guard.admit_serving(order.at); !fresh)
          return to_caf(fresh.error());
        if (state.running) {
          if (state.ahead || order.plan.follows != state.step)
            return to_caf({errc::conflict, "a step is in flight already", ""});
          state.ahead.emplace(std::move(order.plan), order.training_gap_ns,
                              self->make_response_promise<serve::step_result>());
          return state.ahead->answer;
        }
        if (order.plan.follows != 0 && !filled(state, order.plan)) return to_caf(not_followed);
        if (auto begun = begin_step(state, std::move(order.plan), order.training_gap_ns); !begun)
          return to_caf(begun.error());
        state.answer = self->make_response_promise<serve::step_result>();
        auto answer = state.answer;
        run_pieces(self);
        return answer;
      },
      [=](run_training& order) -> caf::result<train::outcome> {
        auto& state = self->state;
        if (auto fresh = self->state.guard.admit_training(order.at); !fresh)
          return to_caf(fresh.error());
        if (const auto& job = state.guard.now().job(); order.what.job != job)
          return to_caf({errc::conflict,
                         "an order of " + order.what.job + " came to a device that trains " + job,
                         ""});
        if (state.training)
          return to_caf(
              {errc::conflict, "an order of " + state.training_job + " is in flight already", ""});
        const auto job = order.what.job;
        if (auto begun = state.device->begin_training(std::move(order.what)); !begun)
          return to_caf(begun.error());
        state.training = true;
        state.training_job = job;
        state.training_answer = self->make_response_promise<train::outcome>();
        auto answer = state.training_answer;
        run_pieces(self);
        return answer;
      },
      [=](take_lease& order) -> caf::result<lease_taken> {
        auto& state = self->state;
        const auto before = state.guard.now();
        if (auto fresh = state.guard.take(order.now); !fresh) return to_caf(fresh.error());
        state.lender = caf::actor_cast<caf::actor_addr>(self->current_sender());
        if (order.now.serve_since != before.serve_since) {
          state.serving_news = order.now.serve_since != 0;
          give_up_step(self, {errc::conflict, went_to(order.now), ""});
        }
        state.awaits_step = false;
        if (order.now.train_since != before.train_since)
          state.training_news = order.now.train_since != 0;
        look_soon(self);  // not here: the answer must not wait for what runs
        return lease_taken{state.device->facts(), before};
      },
      [=](load_model& order) -> caf::result<serve::loaded_model> {
        if (auto fresh = self->state.guard.admit_serving(order.at); !fresh)
          return to_caf(fresh.error());
        return get_and_load(self, order);
      },
      [=](const withdraw_step& order) {
        auto& state = self->state;
        if (state.guard.admit_serving(order.at) && state.ahead &&
            state.ahead->plan.number == order.number)
          withdraw_step_ahead(state, {errc::cancelled, "the step was withdrawn", ""});
      },
      [=](forget_sequences& order) -> caf::result<void> {
        if (auto fresh = self->state.guard.admit_serving(order.at); !fresh)
          return to_caf(fresh.error());
        give_up_step(self, {errc::cancelled, "the step was given up", ""});
        return caf::unit;
      },
      // Versions come and go between two pieces: a step in flight keeps what it began with. They
      // are as resident as the base: a device that trains keeps up with them.
      [=](add_version& order) -> caf::result<serve::device_facts> {
        if (auto fresh = self->state.guard.admit_residency(order.at); !fresh)
          return to_caf(fresh.error());
        return answer_with(self->state.device->add_variant(order.id, order.what));
      },
      [=](const remove_version& order) -> caf::result<serve::device_facts> {
        if (auto fresh = self->state.guard.admit_residency(order.at); !fresh)
          return to_caf(fresh.error());
        // The step that was sent ahead may name it.
        withdraw_step_ahead(self->state,
                            {errc::cancelled, "a version that it could run on has left", ""});
        remove(self, order.id);
        return self->state.device->facts();
      },
      [=](const load_version& order) -> caf::result<serve::device_facts> {
        if (auto fresh = self->state.guard.admit_residency(order.at); !fresh)
          return to_caf(fresh.error());
        return get_and_load(self, order);
      },
      [=](open_training& order) -> caf::result<training_opened> {
        if (auto fresh = self->state.guard.admit_residency(order.at); !fresh)
          return to_caf(fresh.error());
        return get_and_open(self, order);
      },
      [=](join_training& order) -> caf::result<void> {
        if (auto fresh = self->state.guard.admit_residency(order.at); !fresh)
          return to_caf(fresh.error());
        self->state.device->join_training(order.job, std::move(order.group));
        return caf::unit;
      },
      [=](const drop_training& order) -> caf::result<void> {
        if (auto fresh = self->state.guard.admit_residency(order.at); !fresh)
          return to_caf(fresh.error());
        give_up_training(self, order.job, {errc::cancelled, "the order was dropped", ""});
        return caf::unit;
      },
      [=](const close_training& order) -> caf::result<void> {
        if (auto fresh = self->state.guard.admit_residency(order.at); !fresh)
          return to_caf(fresh.error());
        close(self, order.job);
        return caf::unit;
      },
  };
}

gpu_actor::behavior_type gpu_elsewhere(self_pointer self, std::unique_ptr<serve::device> device,
                                       borrower_actor borrower) {
  self->state.borrower = std::move(borrower);
  return gpu(self, std::move(device));
}

}  // namespace tandem::actors
