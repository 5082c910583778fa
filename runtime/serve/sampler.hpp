// From logits to a token: penalties, bias, temperature, top_k, min_p, top_p and a draw that depends
// only on (seed, choice, position), so the same request gives the same text whatever else runs.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/serve/request.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace tandem::serve {

// The sampling state of one sequence.
class sampler {
 public:
  // `prompt` and `generated` are what penalties count.
  sampler(const sampling_parameters& parameters, int choice, std::span<const token_id> prompt,
          std::span<const token_id> generated);
  ~sampler();
  sampler(sampler&&) noexcept;
  sampler& operator=(sampler&&) noexcept;

  // The token at `position` from its logits, which are overwritten. Logprobs are of the model's own
  // distribution (before temperature and filters, after nothing), as OpenAI reports them. `banned`
  // ids are never drawn. Ties go to the smaller id. `scratch` is reused between calls and grows to
  // the vocabulary's size once.
  token_logprob sample(std::span<float> logits, int position, std::span<const token_id> banned,
                       std::vector<std::uint32_t>& scratch);

  // How a device draws the same token, where it takes nothing but the row (backend::draw): no
  // penalties, bias, logprobs or top_k. Banned ids, too, are none of its.
  std::optional<kernels::draw_rule> rule(int position) const;

 private:
  struct state;
  std::unique_ptr<state> state_;
};

// The log-probability of `id` and the `top` best under these logits (not changed).
token_logprob score(std::span<const float> logits, token_id id, int top);

// A uniform number in [0, 1) from counters (Philox 4x32-10, Salmon et al. 2011).
double uniform(std::uint64_t seed, std::uint32_t stream, std::uint64_t counter);

}  // namespace tandem::serve
