// The words of job states: their names, what each move between them is called in the events, and
// the code an error has in a job's "error".
#pragma once

#include "runtime/store/store.hpp"

#include <string>
#include <string_view>

namespace tandem::store {

// The message of the event that tells that `job` (as it was before) went to `to`, which is not
// failed: that event has the reason.
std::string told(const job_record& job, job_status to);

// "invalid_training_file", "out_of_memory", …: errors of jobs, not of requests.
std::string_view job_error_code(const error& why);

}  // namespace tandem::store
