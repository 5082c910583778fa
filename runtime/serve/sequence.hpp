// What the scheduler knows of one sequence (one choice of a request): its tokens, its KV blocks and
// how far it has been computed. Internal to runtime/serve.
#pragma once

#include "runtime/memory/kv_blocks.hpp"
#include "runtime/serve/kv_loan.hpp"
#include "runtime/serve/request.hpp"
#include "runtime/serve/step_plan.hpp"

#include <cstdint>
#include <memory>
#include <vector>

namespace tandem::serve {

inline constexpr int positions_per_block = kernels::kv_block_positions;

constexpr int blocks_for(int positions) {
  return (positions + positions_per_block - 1) / positions_per_block;
}

struct request_state;

struct sequence {
  request_state* of = nullptr;
  int choice = 0;
  slot_index slot = -1;    // -1: waiting
  int flights = 0;         // steps in flight that have rows of it
  bool ended = false;      // its place is given back when no step in flight has rows of it
  bool publishes = false;  // its blocks are of the current weights and may be cached
  int computed = 0;        // positions whose keys and values are written
  int announced = 0;       // blocks the device knows
  int published = 0;       // blocks that are, or need not be, in the prefix cache
  std::vector<token_id> generated;
  std::vector<memory::block_index> blocks;
  std::vector<memory::block_hash> chain;  // of its full blocks, as far as it was needed
  std::uint64_t chain_version = 0;        // the weights the chain is of
  std::vector<token_logprob> scores;      // of the prompt, while it is being read
  bool scored = false;                    // they are complete and were handed out
  std::shared_ptr<kv_loan> kv;            // what it left elsewhere, until it is copied

  inline const generation_request& request() const;
  int prompt_length() const { return static_cast<int>(request().prompt.size()); }
  int length() const { return prompt_length() + static_cast<int>(generated.size()); }
  int remaining() const { return length() - computed; }
  // One row gives the next token; everything before was computed.
  bool decoding() const { return !generated.empty() && remaining() == 1; }
  // The prompt's keys and values are all there.
  bool prompt_read() const { return computed >= prompt_length(); }
  token_id token(int position) const {
    const int prompt = prompt_length();
    return position < prompt ? request().prompt[static_cast<std::size_t>(position)]
                             : generated[static_cast<std::size_t>(position - prompt)];
  }
  // Log-probabilities of the prompt are reported once, for the first choice.
  bool wants_scores() const {
    return choice == 0 && !scored && request().sampling.prompt_logprobs >= 0;
  }
  bool may_match() const { return request().use_prefix_cache && !wants_scores(); }

  // The hashes of its first `count` full blocks.
  std::span<const memory::block_hash> hashes(int count, std::uint64_t weights_version);
};

// A request and its choices, from `add` to the end of the last choice.
struct request_state {
  generation_request request;
  std::uint64_t arrival = 0;  // counts requests: the order within a priority
  time_ns added = 0;
  bool started = false;  // a choice of it has had a slot
  bool began = false;    // ... and a row in a step, which settles the next two
  std::int64_t queued_ns = 0;
  int cached_tokens = 0;
  int live = 0;    // choices that have not ended
  int deaths = 0;  // devices lost in a step of it since its last token
  std::vector<sequence> choices;
};

inline const generation_request& sequence::request() const { return of->request; }

// It may be what kills devices: it runs alone until it has a token, so that nobody shares its fate.
constexpr int suspect_after_deaths = 2;
inline bool is_suspect(const sequence& s) { return s.of->deaths >= suspect_after_deaths; }

// Who is served first: by priority, then age; one that was handed over keeps its age. A total
// order.
struct more_urgent {
  bool operator()(const sequence* a, const sequence* b) const {
    const request_state& x = *a->of;
    const request_state& y = *b->of;
    if (x.request.priority != y.request.priority) return x.request.priority < y.request.priority;
    if (x.added != y.added) return x.added < y.added;
    if (x.arrival != y.arrival) return x.arrival < y.arrival;
    return a->choice < b->choice;
  }
};

// Will another sequence that reads the prompt of `leader` soon find in the cache what it would have
// to read itself? Worth a wait from four blocks on.
bool follows(const sequence& s, const sequence& leader);

// End ids of this request: what ends it, and what may not be drawn yet.
bool is_end(const stop_conditions& stops, token_id id);
// `drawn` more tokens will have been generated.
std::vector<token_id> banned_ids(const sequence& s, int drawn = 0);

// Gives every block back, the last first, so that the cache loses a prefix's tail before its head.
void release_blocks(sequence& s, memory::kv_blocks& book);

}  // namespace tandem::serve
