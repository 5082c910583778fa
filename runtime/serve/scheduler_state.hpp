// The state behind `scheduler`: every sequence it knows, where each stands, and the blocks they
// hold. Its parts change for different reasons and have a file each: admission (who gets a slot and
// which blocks), plan (whose rows make up a step), outcome (what a step's result means).
#pragma once

#include "runtime/serve/prefill_pace.hpp"
#include "runtime/serve/prefill_share.hpp"
#include "runtime/serve/scheduler.hpp"
#include "runtime/serve/sequence.hpp"

#include <deque>
#include <limits>
#include <memory>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

namespace tandem::serve {

struct scheduler::state {
  // What a step does for one sequence.
  struct part {
    sequence* who = nullptr;
    int rows = 0;
    bool sample = false;
    bool scores = false;
    int announced_before = 0;
  };
  // A step that the device has, or will have once it is done with the one before.
  struct flight {
    std::uint64_t number = 0;
    std::vector<part> parts;
    int decoding = 0;  // rows of it that decode
    std::vector<slot_index> releases;
  };

  static constexpr time_ns never = std::numeric_limits<time_ns>::max();

  scheduler_settings settings;
  memory::kv_blocks book;
  std::unordered_map<request_id, std::unique_ptr<request_state>> requests;
  std::set<sequence*, more_urgent> waiting;
  std::vector<sequence*> running;  // most urgent first
  std::vector<slot_index> free_slots;
  std::vector<slot_index> releases;  // slots given back since the last plan
  std::deque<flight> flights;        // two at most: the second was planned ahead
  std::vector<part> planned;         // of the plan that is being made
  int planned_decoding = 0;          // rows of it that decode
  prefill_pace pace;
  bool suspects_turn = false;  // every other step is theirs, one in each
  std::uint64_t number = 0;    // of the last plan
  std::uint64_t arrivals = 0;
  int not_started = 0;            // requests
  time_ns next_deadline = never;  // no waiting sequence's deadline is earlier
  scheduler_counts totals;
  std::shared_ptr<const memory::kv_memory> kv;  // null: nothing is lent or borrowed
  std::vector<std::weak_ptr<kv_loan>> loans;    // that are out
  // Blocks that were lent and are back, until take_returned_blocks.
  std::shared_ptr<kv_loan::block_list> returned = std::make_shared<kv_loan::block_list>();

  explicit state(const scheduler_settings& s);

  // --- places (scheduler.cpp) -------------------------------------------------------------------
  void free_all_slots();
  // Tokens one sequence can have: the last needs no block of its own.
  std::int64_t longest() const;
  void wait(sequence& s);
  void give_back_slot(sequence& s);
  void lend(sequence& s);  // scheduler_handover.cpp
  // The end of a choice. Its request goes with the last one: `s` is gone then.
  void retire(sequence& s);
  void end_choice(sequence& s);
  void preempt(sequence& s);

  // --- admission (scheduler_admission.cpp) ------------------------------------------------------
  // A choice whose prompt is read lends its blocks to the others; while one is reading, they wait.
  sequence* reader_of(request_state& r) const;
  // Blocks whose contents are already what this sequence needs; never all of its tokens, because
  // the last one's logits are wanted.
  std::vector<memory::block_index> known_prefix(sequence& s, const sequence* lender);
  // Every block of what is known so far, at once, so that reading it never fails half-way. One
  // block for each running sequence stays free: they can grow before anyone must make room.
  bool take_blocks(sequence& s, const sequence* lender);
  // Where what it left elsewhere can be copied from and is worth it; null: nowhere.
  std::shared_ptr<const memory::kv_memory> reachable_kv(const sequence& s) const;
  void copy_kv(sequence& s, step_plan& plan) const;
  void take_returned_blocks();
  // Loans that nobody copies right now are called back; false: there was none.
  bool call_loans_back();
  void start(sequence& s, step_plan& plan);
  void admit(step_plan& plan);

  // --- a step (scheduler_plan.cpp) --------------------------------------------------------------
  void add_chunk(sequence& s, int rows, time_ns now, step_plan& plan);
  // A chunk into the plan that is being made, with the blocks that the device has not been told of.
  void put(sequence& s, step_chunk chunk, step_plan& plan);
  // One row for each sequence that decodes, the most urgent first. Who is put off to make room is
  // always the last of `running`: one that has no row yet, or the asking one itself.
  bool plan_decodes(time_ns now, step_plan& plan);
  // Blocks that others have published since this sequence was admitted need not be read again:
  // of many prompts with one beginning that arrive together, one reads it.
  void match_further(sequence& s);
  // Who would read in this step what somebody more urgent reads in it leaves the rows to others.
  static bool let_followers_wait(std::span<sequence* const> readers, std::span<const int> rows,
                                 std::vector<reading>& shares);
  // `alone`: of the most urgent suspect, and nobody else.
  void plan_prompts(time_ns now, step_plan& plan, bool alone);
  void plan_rows(time_ns now, step_plan& plan, bool alone);
  // The plan that was made is the device's from here on.
  void take_off(step_plan& plan);
  // Does everybody who runs draw a token in the step in flight, and nobody else get a place?
  bool goes_on_alike() const;
  // It draws its last token in the step in flight, whatever that is.
  bool ends_by_length(const sequence& s) const;
  void add_row_ahead(sequence& s, step_plan& plan);

  // --- what came of it (scheduler_outcome.cpp) --------------------------------------------------
  // It is over; its place waits for a step in flight that has rows of it.
  void retire_when_landed(sequence& s);
  void publish_full_blocks(sequence& s);
  sequence_event event_of(const sequence& s) const;
  void append(sequence& s, const token_logprob& token, sequence_event& e);
  void fail_if_late(const sequence& s, time_ns now, sequence_event& e) const;
};

}  // namespace tandem::serve
