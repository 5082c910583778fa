#include "runtime/store/job_status.hpp"

#include <fmt/format.h>

#include <array>

namespace tandem::store {
namespace {

// In the order of the enum.
constexpr std::array<std::string_view, 7> names{"validating_files", "queued", "running",  "paused",
                                                "succeeded",        "failed", "cancelled"};

}  // namespace

std::string_view name_of(job_status status) { return names.at(static_cast<std::size_t>(status)); }

std::optional<job_status> job_status_from(std::string_view name) {
  for (std::size_t at = 0; at < names.size(); ++at)
    if (names[at] == name) return static_cast<job_status>(at);
  return {};
}

bool is_final(job_status status) {
  return status == job_status::succeeded || status == job_status::failed ||
         status == job_status::cancelled;
}

std::string told(const job_record& job, job_status to) {
  auto at_step = [&](std::string_view what) {
    return job.step == 0 ? std::string(what)
                         : fmt::format("{} after step {} of {}", what, job.step, job.step_count);
  };
  switch (to) {
    case job_status::validating_files:
      return fmt::format("Validating training file: {}", job.training_file);
    case job_status::queued:
      return job.status == job_status::validating_files
                 ? "Files validated, moving job to queued state"
                 : at_step("Fine-tuning job moved to queued state");
    case job_status::running:
      return at_step(job.step == 0 ? "Fine-tuning job started" : "Fine-tuning job goes on");
    case job_status::paused:
      return at_step("Fine-tuning job paused");
    case job_status::succeeded:
      return "The job has successfully completed";
    case job_status::cancelled:
      return at_step("Fine-tuning job cancelled");
    case job_status::failed:
      break;
  }
  return "Fine-tuning job failed";
}

std::string_view job_error_code(const error& why) {
  switch (why.code) {
    case errc::bad_file:
    case errc::context_length_exceeded:
      return why.param == "validation_file" ? "invalid_validation_file" : "invalid_training_file";
    case errc::bad_request:
      return "invalid_request";
    case errc::unsupported:
      return "unsupported";
    case errc::not_found:
      return "not_found";
    case errc::too_large:
      return "too_large";
    case errc::no_memory:
      return "out_of_memory";
    case errc::io:
      return "io_error";
    case errc::timed_out:
      return "timed_out";
    case errc::unavailable:
    case errc::overloaded:
      return "unavailable";
    case errc::unauthorized:
    case errc::forbidden:
    case errc::conflict:
    case errc::cancelled:
    case errc::internal:
      break;
  }
  return "internal_error";
}

}  // namespace tandem::store
