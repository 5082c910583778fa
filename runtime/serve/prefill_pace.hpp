// How many prompt rows a step may carry while other sequences decode in it: as many as keep the
// step within a small multiple of a step that only decodes, by what the last steps took. Attention
// makes a late row of a long prompt several times as dear as an early one, so no fixed number of
// rows bounds the pause that everybody else sees. Where more sequences wait for prompt rows than
// decode, the waits weigh more than the pauses, and a step may take longer in that proportion, up
// to a bound. A pure function of the steps it was told of.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace tandem::serve {

class prefill_pace {
 public:
  // `rows_max`: never more, whatever the clock says.
  explicit prefill_pace(int rows_max) : rows_max_(rows_max) {}

  // A step is done: how many of its rows decoded, how many read prompts, and how long it took.
  void step_done(int decode_rows, int prompt_rows, std::int64_t took_ns);
  // Prompt rows for a step in which so many sequences decode and so many read prompts; at least
  // one, so that nobody starves.
  int rows_allowed(int decode_rows, int readers = 1) const;

 private:
  struct step {
    double decode_rows = 0;
    double prompt_rows = 0;
    double ns = 0;  // 0: none was seen
  };
  // What a step with so many decoding rows takes; 0: not known.
  double usual_ns(int decode_rows) const;

  // Steps that only decoded, averaged, by the power of two of their rows: 1, 2-3, 4-7, ...
  std::array<step, 16> decoding_;
  std::array<step, 24> mixed_;   // the last ones that read prompts, too
  std::size_t mixed_count_ = 0;  // ever
  double row_ns_ = 0;            // of one prompt row; 0: not known yet
  int rows_max_;
};

}  // namespace tandem::serve
