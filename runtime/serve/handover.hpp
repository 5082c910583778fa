// A request on its way from one scheduler to another, with all that was made of it. The receiving
// one copies its keys and values where it can reach them, else reads prompt and generated tokens
// again; either way it goes on with the same bits.
#pragma once

#include "runtime/serve/kv_loan.hpp"
#include "runtime/serve/request.hpp"

#include <cstdint>
#include <memory>
#include <vector>

namespace tandem::serve {

struct handed_choice {
  std::vector<token_id> generated;
  bool ended = false;
  bool scored = false;  // the prompt's log-probabilities were handed out
  std::shared_ptr<kv_loan> kv;
  bool operator==(const handed_choice&) const = default;
};

struct handed_request {
  generation_request request;
  time_ns added = 0;     // when the first scheduler took it; its place among others
  bool started = false;  // a choice of it has had a slot: the queue's bound has let it pass
  bool began = false;    // ... and a row in a step, which settled the next two
  std::int64_t queued_ns = 0;
  int cached_tokens = 0;
  int deaths = 0;  // devices lost in a step of it since its last token
  std::vector<handed_choice> choices;

  int open_choices() const {
    int open = 0;
    for (const auto& choice : choices) open += choice.ended ? 0 : 1;
    return open;
  }
};

}  // namespace tandem::serve
