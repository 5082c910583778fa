// The scheduler of one device serving one model: a pure state machine. Requests, time and step
// results go in; step plans and finished sequences come out. No threads, no clocks, no I/O.
//
// Continuous batching: every step mixes one row of each decoding sequence with chunks of prompts,
// up to max_batch_tokens rows. While anything decodes, prompts get at most prefill_chunk_tokens of
// them, and no more than keep the step within 1.8 times a step that only decodes, or longer where
// more sequences wait for rows than decode (prefill_pace.hpp), so that a long prompt neither
// starves short ones nor is felt by running streams. When KV blocks run out the least urgent,
// newest sequence gives its blocks back and is read again later from prompt and generated tokens;
// with the same bits, so nobody outside can tell.
#pragma once

#include "runtime/memory/kv_blocks.hpp"
#include "runtime/result.hpp"
#include "runtime/serve/handover.hpp"
#include "runtime/serve/request.hpp"
#include "runtime/serve/step_plan.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace tandem::serve {

struct scheduler_settings {
  int max_sequences = 64;          // slots
  int max_batch_tokens = 512;      // rows of one step
  int prefill_chunk_tokens = 128;  // rows of prompts in one step while something decodes
  int max_queued = 256;            // requests not yet started; more are refused as overloaded
  int max_logit_rows = 64;  // rows of one step whose logits are wanted: sampled ones, and all
                            // rows of chunks with prompt_logprobs (cut such chunks to fit)
  std::int64_t context_length = 2048;
  std::int64_t kv_blocks = 0;
  std::uint64_t weights_version = 1;
  bool prefix_cache = true;
};

// A token that became part of a sequence, or the end of one.
struct sequence_event {
  request_id id = 0;
  int choice = 0;
  std::vector<token_logprob> tokens;           // appended by this step (0 or 1)
  std::vector<token_logprob> prompt_logprobs;  // complete, once
  finish_reason finish = finish_reason::none;  // stop (an end token), length, error
  std::optional<token_id> stop_token;          // the end token that was sampled; not in `tokens`
  std::optional<tandem::error> failure;
  int prompt_tokens = 0;
  int cached_tokens = 0;      // of the request's prompt when its first step began
  int completion_tokens = 0;  // the end token counts
  std::int64_t queued_ns = 0;
};

struct scheduler_counts {
  int queued = 0;   // sequences without a slot, preempted ones among them
  int running = 0;  // sequences with one
  std::int64_t blocks_total = 0;
  std::int64_t blocks_free = 0;    // unused or only cached: available to any request
  std::int64_t blocks_cached = 0;  // hold a prefix nobody runs on
  std::uint64_t preemptions = 0;
  std::uint64_t prompt_tokens_computed = 0;
  std::uint64_t prompt_tokens_cached = 0;
  std::uint64_t tokens_generated = 0;
};

// So many devices one request may cost.
inline constexpr int deaths_max = 4;

class scheduler {
 public:
  explicit scheduler(const scheduler_settings& settings);
  ~scheduler();

  // Refuses what can never run (longer than the context or than all blocks) and what finds the
  // queue full. `request.choices` sequences share the prompt's blocks.
  result<void> add(generation_request request, time_ns now);
  // Ends every choice of the request; its blocks are free once the step in flight is done. Unknown
  // ids are ignored. No event follows.
  void cancel(request_id id);
  // Ends one choice: a stop string was found outside. The others go on.
  void finish_choice(request_id id, int choice);

  // The next step, or an empty plan when there is nothing to run, or nothing before others have
  // copied what they were lent. No other step may be in flight.
  step_plan schedule(time_ns now);
  // The step after the one in flight, before it is known what that draws: one row of each sequence
  // that draws in it and may go on. Nothing where anything but that could be done next: a prompt to
  // read, a place to give. A row of a sequence that ends with that step is for nothing.
  std::optional<step_plan> schedule_ahead();
  // Does somebody wait who would get a place in a plan made now?
  bool wants_place() const;
  // Has everybody ended who has a row in the plan made ahead?
  bool ahead_for_nothing() const;
  // The plan made ahead, of this number, was not begun and never will be; nor what follows it.
  void take_back(std::uint64_t number);
  // The older step's outcome; returns what became of each sequence in it, in plan order, where
  // there is anything to tell. Deadlines that passed are errors here (`timed_out`), also of running
  // sequences without a row in this step. A result of a step that was lost is ignored.
  std::vector<sequence_event> complete(const step_result& done, time_ns now);
  // The device lost the step and all its memory: every running sequence is queued again. Returns
  // the requests that were in the step of each of the last deaths_max devices that were lost,
  // without a token in between: whoever runs them next may be lost, too.
  std::vector<request_id> device_lost();
  // The device gave the step up and forgot every sequence, and its memory stands: they are queued
  // again, and find the prefixes they had.
  void forget_sequences();

  // --- to another scheduler and back (scheduler_handover.cpp) -----------------------------------
  // Where this device's keys and values lie, so that sequences can take theirs along, and bring
  // them from memory of the same layout. Null: they are read again.
  void set_kv_memory(std::shared_ptr<const memory::kv_memory> memory);
  // What was lent cannot be reached: it is read again.
  void forget_loans();
  // Everything leaves, in order of arrival; a step in flight counts for nothing. The device must
  // forget its sequences, too. Cached prefixes stay.
  std::vector<handed_request> hand_over_all();
  // Requests of which nothing was computed here, the most urgent first.
  std::vector<request_id> unread_requests() const;
  // Likewise all that have a slot; only between two steps.
  std::vector<request_id> running_requests() const;
  // One of these leaves alone.
  handed_request hand_over(request_id id);
  // Never refused, however full the queue is: it was accepted once. Must be able to run here: no
  // longer than longest_sequence() has room for.
  void adopt(handed_request handed);
  std::int64_t longest_sequence() const;  // tokens, prompt and generated
  // How much of its prompt's beginning the prefix cache has, in tokens.
  int known_tokens(const generation_request& request) const;
  // Also one that was cancelled, until the step in flight is done.
  bool knows(request_id id) const;

  // Requests whose deadline passed while queued.
  std::vector<sequence_event> expire(time_ns now);

  bool idle() const;
  int sequences() const;  // queued and running
  // Once the step in flight is done, will somebody still wait for prompt rows or for a slot?
  bool reads_prompts() const;
  scheduler_counts counts() const;
  void set_weights_version(std::uint64_t version);

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace tandem::serve
