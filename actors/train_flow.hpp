// The parts of a train coordinator that call each other; internal to actors/train_*.cpp. Life
// (train_coordinator.cpp): prepare, leave, what goes wrong. Homes
// (train_homes.cpp, train_reach.cpp): where the job lies. Copies (train_copies.cpp): what is left
// when a member dies. Work (train_work.cpp): whose turn it is. Steps (train_steps.cpp): rounds,
// norm, update. Versions (train_versions.cpp): validation, checkpoints, publishing, the end.
#pragma once

#include "actors/train_coordinator.hpp"

#include <functional>
#include <string_view>
#include <vector>

namespace tandem::actors {

using train_self = train_coordinator_actor::stateful_pointer<train_state>;

// --- life --------------------------------------------------------------------------------------
void tell(train_self self, std::string_view level, std::string message,
          std::string type = "message", std::string data_json = "null");
void fail_job(train_self self, const error& why);  // the job ends here, with this reason
// Something ended what was under way: what can be saved of the step done is, and the job goes on.
void start_over(train_self self, const error& why);
void fall_back(train_self self, const error& why);  // from the newest checkpoint, after a pause
void wait_for_devices(train_self self);             // as long as none is up; likewise
void leave(train_self self);                        // devices back, actor ends
void tell_progress(train_self self);                // to the coordinator

// --- homes -------------------------------------------------------------------------------------
void borrow_devices(train_self self);  // opens the job on them and goes on from its checkpoint
void tell_resident(train_self self);   // to the coordinator: where it lies
void give_up_work(train_self self);    // what is under way; the job stays open
void close_job(train_self self);       // and closes it; devices stay lent
void free_devices(train_self self);    // and gives them back
void move(train_self self);            // from the checkpoint of this step, to whoever is up
// Between two steps: moves the job if other devices are better, else goes on with `stay`.
void look_at_homes(train_self self, std::function<void()> stay);
// Nobody works on it, perhaps for good: it need not wait for the end of its step.
void move_if_stranded(train_self self);

// --- reach (train_reach.cpp) --------------------------------------------------------------------
// The courier of this rank could not move what an order needs, or what came of it.
void transfer_failed(train_self self, int rank, const error& why);
// These are up: of two that do not reach each other one is left out from now on.
void judge_suspects(train_self self, const std::vector<shared_device>& up);
// Those that are left out are tried; whoever is reached again is taken in at the end of a step.
void look_who_is_in_reach(train_self self);

// --- copies (train_copies.cpp) ------------------------------------------------------------------
void copy_shards(train_self self);  // of the step done, to their buddies
// Once none is on its way: whole, or given up.
void when_copied(train_self self, std::function<void()> then);
void shards_change(train_self self);  // an update begins
// Saves what is left of the step done and goes on from there; false: it cannot, or need not.
bool rescue(train_self self, const error& why);

// --- steps -------------------------------------------------------------------------------------
void begin_step(train_self self);  // the one after state.step
// What is computed of one round for this home.
train::order round_order(train_self self, train::order_kind kind, const train::step_rows& rows,
                         std::size_t round, int home);

// --- versions ----------------------------------------------------------------------------------
void after_step(train_self self);  // what is due after state.step, then the next or the end
// Once no checkpoint is being written.
void when_saved(train_self self, std::function<void()> then);
// Writes the parameters of state.step unless they are on disk.
void save(train_self self);
save_checkpoint checkpoint_order(train_self self);
void send_save(train_self self, const save_checkpoint& order);

// --- work --------------------------------------------------------------------------------------
// One kind of work for each home of `homes`, by whoever works, and on with the outcomes in that
// order. A failed order starts the job over or ends it; an answer that is out of date is dropped.
void run_phase(train_self self, train::order_kind kind, std::vector<int> homes,
               std::function<train::order(int home)> make,
               std::function<void(std::vector<train::outcome>)> then);
std::vector<int> all_homes(const train_state& state);
std::vector<courier_actor> couriers(const train_state& state);  // by rank
// By rank: whether this member reads and writes that one's memory itself.
std::vector<bool> shares_memory(const train_state& state, int rank);
// Somebody may work now, or may not any more.
void deal(train_self self);
void granted(train_self self, const lease::lease& now);
void revoked(train_self self, const lease::lease& now);
// Nobody works on it, and its parameters are those of a step.
bool is_stranded(const train_state& state);
// The job wants to leave and nobody works on it: what it has done is saved, the rest waits for its
// next start.
void leave_if_stranded(train_self self);

void order_failed(train_self self, const error& why);

}  // namespace tandem::actors
