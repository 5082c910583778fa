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

// Checks everything that can be checked without the data: `hyperparameters` as under
// method.supervised.hyperparameters (n_epochs 1-50, batch_size 1-256, learning_rate_multiplier > 0,
// each may be "auto"; null: all auto), `own` as under "tandem" (null: none). `default_slots` is
// train.slots of the settings.
result<void> check_options(const text::value& hyperparameters, const text::value& own);

struct data_facts {
  std::int64_t examples = 0;
  std::int64_t longest = 0;  // tokens
};
// Fills every "auto" in. n_epochs: 3, more for few examples, so that there are about 100 steps, at
// most 25; batch_size: about 0.2 % of the examples, 4 to 64... stated in job_options.cpp and the
// README.
result<job_settings> settle_options(const text::value& hyperparameters, const text::value& own,
                                    const model::model_config& config, const data_facts& facts,
                                    int default_slots, std::uint64_t seed);

// What the job object shows: {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.0}, and
// every job_settings field under "tandem".
text::value shown_hyperparameters(const job_settings& settings);
text::value shown_settings(const job_settings& settings);
// The inverse of shown_settings: how settled settings come back from the store.
result<job_settings> settings_from(const text::value& shown);

}  // namespace tandem::train
