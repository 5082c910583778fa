// A device that computes with hashes: each position's "key and value" is made from the one before
// it as it lies in the KV block, the token and the position, and the next token from all of them.
// So a wrong block, position, token or a forgotten recompute changes the text. It also checks what
// any device relies on: known slots, the sequence's own tokens, and one writer a block.
#pragma once

#include "runtime/serve/scheduler.hpp"

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace tandem::serve::testing {

inline constexpr token_id vocabulary = 60;
inline constexpr token_id end_of_text = 0;

class fake_device {
 public:
  explicit fake_device(std::int64_t blocks) : kv_(static_cast<std::size_t>(blocks * 16), 0) {}
  step_result run(const step_plan& plan);
  // The power goes out: slots and memory are gone.
  void lose();
  // Every sequence is forgotten, and its memory stands.
  void forget() { slots_.clear(); }
  std::size_t slots_in_use() const { return slots_.size(); }
  // For other devices, as long as this one lives.
  std::shared_ptr<const memory::kv_memory> memory() const {
    return std::make_shared<const memory::kv_memory>(
        memory::kv_memory{nullptr, std::as_bytes(std::span(kv_)), 16 * sizeof(kv_[0]), "fake", {}});
  }
  int rows_computed = 0;

 private:
  struct slot {
    slot_start start;
    std::vector<std::int32_t> blocks;
    std::vector<token_id> history;
    int written = 0;
  };
  std::uint64_t& kv(const slot& s, int position);
  int users(std::int32_t block) const;

  std::vector<std::uint64_t> kv_;
  std::map<slot_index, slot> slots_;
};

// What one choice must come to, computed from the request alone. `longest`: tokens it can have.
struct outcome {
  std::vector<token_id> tokens;
  finish_reason finish = finish_reason::none;
  std::optional<token_id> stop_token;
  bool operator==(const outcome&) const = default;
};
outcome expected(const generation_request& request, int choice, std::int64_t longest);
// The log-probabilities the fake device gives a prompt.
std::vector<token_logprob> expected_scores(const std::vector<token_id>& prompt);

// A scheduler and its device, stepped by hand.
class engine {
 public:
  explicit engine(const scheduler_settings& settings)
      : core(settings), device(settings.kv_blocks), settings_(settings) {}

  // One whole step; false when there was nothing to run.
  bool step();
  void run_until_idle();
  // The parts of a step, for what happens in between. A step that was planned ahead has begun when
  // the one before it finishes.
  bool begin();
  bool plan_ahead();  // false: none is planned
  void take_back();   // what was planned ahead never begins
  void finish();
  std::vector<request_id> lose_device();  // what scheduler::device_lost() says

  outcome& of(request_id id, int choice = 0) { return outcomes[{id, choice}]; }
  std::int64_t longest() const;
  int ended() const;  // choices that had their finish event

  scheduler core;
  fake_device device;
  step_plan plan;
  std::optional<step_plan> ahead;
  time_ns now = 0;
  int steps = 0;
  std::map<std::pair<request_id, int>, outcome> outcomes;
  std::map<std::pair<request_id, int>, sequence_event> last;
  std::map<std::pair<request_id, int>, std::vector<token_logprob>> scores;
  std::map<std::pair<request_id, int>, int> ends;  // finish events seen
  std::map<request_id, int> first_token_step;

 private:
  void note(const std::vector<sequence_event>& events);
  void check(const step_plan& p) const;
  scheduler_settings settings_;
  step_result result_;
  bool runs_ = false;  // a step is in flight
};

generation_request ask(request_id id, std::vector<token_id> prompt, int max_tokens = 16);
// `count` tokens that differ from those of other kinds.
std::vector<token_id> words(int count, int kind = 1);
// A prompt and exactly so many tokens: it has no end ids.
generation_request endless(request_id id, int prompt, int tokens, int kind);
scheduler_settings roomy();
// Every choice of the request came to what it is alone.
void check_text(engine& e, const generation_request& r);

}  // namespace tandem::serve::testing
