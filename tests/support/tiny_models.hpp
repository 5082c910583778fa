// Small random models, one for each family's peculiarities, and what Hugging Face's
// implementations make of them in float64 (tests/golden/tiny).
#pragma once

#include "tests/support/golden.hpp"

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace tandem::test {

inline constexpr std::array families{
    "llama_tied",   "llama31_rope_untied", "mistral_window", "qwen2_bias",
    "qwen3_qknorm", "gemma3_local_global", "phi3_fused",     "qwen3_moe"};

// Of families that share every op with those above, or are served only: no training in their
// expected.json (tests/golden/make/tiny_families.py).
inline constexpr std::array further_families{
    "mixtral_window",    "smollm3_skips_rope", "granite_multipliers",
    "gemma_first",       "gemma2_softcaps",    "olmo2_wide_norms",
    "olmo3_yarn_window", "exaone4_window",     "seed_oss_bias"};

inline std::filesystem::path tiny(const std::string& family) { return golden("tiny/" + family); }

struct truth {
  explicit truth(const std::string& family) : file("tiny/" + family + "/expected.json") {
    const auto root = file.root();
    prompt = ids_of(root["prompt_ids"]);
    logits_last = numbers_of(root["logits_last"]);
    logprob_of_next = numbers_of(root["logprob_of_next"]);
    greedy_prompt = ids_of(root["greedy"]["prompt"]);
    greedy_ids = ids_of(root["greedy"]["ids"]);
  }
  golden_json file;
  std::vector<std::int32_t> prompt;
  std::vector<double> logits_last;
  std::vector<double> logprob_of_next;
  std::vector<std::int32_t> greedy_prompt;
  std::vector<std::int32_t> greedy_ids;
};

inline std::vector<std::int32_t> slice(const std::vector<std::int32_t>& ids, std::size_t from,
                                       std::size_t count) {
  const auto start = ids.begin() + static_cast<std::ptrdiff_t>(from);
  return {start, start + static_cast<std::ptrdiff_t>(count)};
}

}  // namespace tandem::test
