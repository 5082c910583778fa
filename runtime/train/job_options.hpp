// From what a user asked for (OpenAI's hyperparameters, "auto" among them, and our own options
// under "tandem") to complete job_settings. Unknown names, wrong types and impossible values are
// refused by field, with the nearest known name and what is possible.
#pragma once

#include "runtime/model/model_config.hpp"
#include "runtime/result.hpp"
#include "runtime/text/value.hpp"
#include "runtime/train/job_settings.hpp"

#include <cstdint>
#include <string>

namespace tandem::train {

// Checks everything that can be checked without model and data: `hyperparameters` as under
// method.supervised.hyperparameters (n_epochs 1-50, batch_size 1-256, learning_rate_multiplier > 0,
// each may be "auto"; null: all auto), `own` as under "tandem" (null: none; each may be "auto").
// Refused (bad_request, the field as param): unknown names, wrong types, impossible values, and
// what would have no effect with the method asked for.
result<void> check_options(const text::value& hyperparameters, const text::value& own);

struct data_facts {
  std::int64_t examples = 0;
  std::int64_t longest = 0;  // tokens
};
// Fills every "auto" in; `default_slots` is train.slots of the settings. The rules:
//   batch_size       0.2 % of the examples, at least 4 (of fewer than 32 examples: an eighth of
//                    them, at least 1), at most 64
//   n_epochs         3; for small files as many as make 200 steps, at most 25
//   learning_rate    multiplier x default: 5e-4 (2000 / D)^0.78 for LoRA, between 5e-5 and 2e-3; a
//                    tenth of it for full training; an absolute "learning_rate" goes first
//   alpha            twice the rank, so that LoRA's updates keep their size
//   warmup_steps     5 % of the steps, at most 100
//   sequence_length  the longest example rounded up to 16, at least 256, at most the context
//   targets          every linear module of the family (of mixtures: attention's)
//   serve_format     bf16
// All else is as job_settings has it. Refused too: sequence_length beyond the context.
result<job_settings> settle_options(const text::value& hyperparameters, const text::value& own,
                                    const model::model_config& config, const data_facts& facts,
                                    int default_slots, std::uint64_t seed);

// What the job object shows: {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.0}, and
// every job_settings field by its name for "tandem" ("betas" holds two).
text::value shown_hyperparameters(const job_settings& settings);
text::value shown_settings(const job_settings& settings);
// The inverse of shown_settings, to the bit, also through JSON: how settled settings come back from
// the store. Refused (bad_file): a field that is missing, unknown or impossible.
result<job_settings> settings_from(const text::value& shown);

}  // namespace tandem::train
