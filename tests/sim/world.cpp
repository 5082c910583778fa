#include "tests/sim/world.hpp"

#include "tests/sim/checker.hpp"
#include "tests/sim/cluster.hpp"
#include "tests/sim/faults.hpp"
#include "tests/sim/load.hpp"
#include "tests/sim/timeline.hpp"

#include <algorithm>
#include <bit>
#include <memory>

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

constexpr auto quiet_limit = 600s;  // virtual: everything must have ended by then

std::shared_ptr<ground> ground_of(const knobs& how) {
  auto on = std::make_shared<ground>();
  on->serve_piece = how.serve_piece;
  on->train_piece = how.train_piece;
  on->memory_filled = how.memory_filled;
  on->slots = std::clamp(static_cast<int>(std::bit_ceil(static_cast<unsigned>(how.devices))), 8,
                         static_cast<int>(test::fake_trainer_memory::count));
  on->data = made_up_data(on->slots);
  return on;
}

class simulation {
 public:
  simulation(std::uint64_t seed, const knobs& how)
      : how_(how),
        on_(ground_of(how)),
        database_(std::make_shared<memory_database>()),
        time_(seed, on_, database_, how.epochs_unchecked),
        cluster_(seed, how_, time_, on_, database_),
        load_(seed, how_, time_, cluster_, on_, database_),
        faults_(seed, how_, time_, cluster_, on_) {
    time_.let_stall(how_.faults);
    database_->loses_leases = how.book_loses_writes;
    database_->fence_unchecked = how.fence_unchecked;
  }

  ~simulation() { time_.end(); }
  simulation(const simulation&) = delete;
  simulation& operator=(const simulation&) = delete;

  outcome run() {
    while (cluster_.open_heads().empty() && !time_.is_endless())
      time_.run_until(time_.now() + 10ms);
    const auto end = time_.now() + std::chrono::duration_cast<std::chrono::nanoseconds>(
                                       std::chrono::duration<double>(how_.seconds));
    load_.begin();
    if (how_.faults) faults_.begin();
    time_.run_until(end);
    faults_.end();
    load_.end();
    const auto limit = time_.now() + quiet_limit;
    while (time_.now() < limit && !load_.all_ended() && !time_.is_endless())
      time_.run_until(time_.now() + 250ms);
    if (time_.is_endless()) on_->violated("messages without an end: somebody does nothing, busily");
    check_run(load_, cluster_, *database_, *on_);
    return result();
  }

 private:
  outcome result() {
    outcome out;
    out.violations = on_->violations;
    out.messages = time_.messages();
    out.requests = load_.requests().size();
    out.crashes = faults_.crashes();
    out.cuts = faults_.cuts();
    out.silences = faults_.silences();
    out.head_losses = cluster_.head_losses();
    out.asked_again = load_.broken();
    for (const auto& job : database_->jobs) out.training_steps += job.step;
    out.jobs = database_->jobs.size();
    out.moves = time_.seen().moves();
    out.virtual_seconds = std::chrono::duration<double>(time_.now().time_since_epoch()).count();
    out.busy_device_seconds = static_cast<double>(on_->busy_ns) * 1e-9;
    out.peak_memory = on_->peak_memory;
    auto hash = time_.hash();
    for (const auto& [id, request] : load_.requests()) {
      hash = fold(hash, request.tokens.size());
      for (const auto token : request.tokens) hash = fold(hash, static_cast<std::uint64_t>(token));
    }
    out.hash = fold(hash, static_cast<std::uint64_t>(time_.now().time_since_epoch().count()));
    return out;
  }

  const knobs how_;
  std::shared_ptr<ground> on_;
  std::shared_ptr<memory_database> database_;
  timeline time_;
  cluster cluster_;
  load load_;
  faults faults_;
};

}  // namespace

outcome run(std::uint64_t seed, const knobs& how) { return simulation(seed, how).run(); }

knobs drawn(std::uint64_t seed) {
  random_stream from(fold(seed, 9));
  knobs how;
  constexpr int sizes[] = {1, 2, 3, 4, 4, 8, 8, 16, 32, 64};
  how.devices = sizes[from.below(std::size(sizes))];
  how.nodes = 1 + static_cast<int>(from.below(4));
  how.seconds = 3.0 + from.share() * 6.0;
  how.requests_per_second = how.devices * (0.5 + 5.0 * from.share());
  how.moves_per_second = 1.0 + 30.0 * from.share();
  if (from.chance(0.2)) how.moves_per_second *= 10;  // a storm
  how.serve_piece = std::chrono::milliseconds(8 + from.below(24));
  how.train_piece = std::chrono::milliseconds(25 + from.below(130));
  how.memory_filled = from.chance(0.3) ? 0.95 : 0.6;
  how.heads = from.chance(0.4) ? 2 + static_cast<int>(from.below(2)) : 1;
  return how;
}

}  // namespace tandem::sim
