// How one step's prompt rows are dealt out among the sequences that are reading. A pure function:
// the fairness of the whole engine towards prompts is this one rule.
#pragma once

#include <span>
#include <vector>

namespace tandem::serve {

// A sequence that still has `remaining` rows to compute before its next token.
struct reading {
  int priority = 0;
  int remaining = 0;
};

// Rows for each of `sequences`, which stand in order of (priority, arrival); at most `budget` in
// all, and all of it while anything remains.
//
// Priorities are served strictly in order. Within one, the longest-waiting gets half, and the rest
// goes to whoever has least left to read: so a long prompt never holds up a short one, and no
// stream of short ones ever stops a long one. Equal prompts are read one after another, which
// finishes each of them sooner than reading all in turns would.
std::vector<int> share_rows(std::span<const reading> sequences, int budget);

}  // namespace tandem::serve
