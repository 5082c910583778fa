// Every setting of a job as one row: its name in JSON, what it may be, and where it lies in
// job_settings. Checking, filling in, showing and reading back all walk these rows.
#pragma once

#include "runtime/result.hpp"
#include "runtime/text/value.hpp"
#include "runtime/train/job_settings.hpp"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::train {

enum class option_group : std::uint8_t {
  published,  // under method.supervised.hyperparameters
  own,        // under "tandem"
  settled     // shown only
};

struct option {
  std::string name;        // as shown: "epochs"
  std::string asked_name;  // as asked for where that differs: "n_epochs"
  option_group group = option_group::own;
  // Sets the field, or says in half a sentence what would be right ("an integer from 1 to 50").
  std::function<result<void>(const text::value&, job_settings&)> set;
  std::function<text::value(const job_settings&)> show;

  const std::string& asked() const { return asked_name.empty() ? name : asked_name; }
};

const std::vector<option>& option_table();

bool is_auto(const text::value& v);  // null and "auto"

// Sets what `object` (null: nothing) asks for of one group; "auto" and null leave a field alone.
// Refused by "PREFIX.name": unknown names with the nearest known, wrong types, impossible values.
result<void> set_options(const text::value& object, option_group group, std::string_view prefix,
                         job_settings& to);

}  // namespace tandem::train
