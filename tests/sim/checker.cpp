#include "tests/sim/checker.hpp"

#include "runtime/train/step_planner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace tandem::sim {
namespace {

using store::job_status;

// One device alone, from the fake's own arithmetic: sums of whole numbers, exact in any order.
std::vector<float> undisturbed(const ground& on) {
  const auto settings = made_up_settings(on.slots);
  const train::step_planner planner(on.data, settings);
  test::fake_trainer_memory memory;
  for (std::int64_t step = 1; step <= planner.step_count(); ++step) {
    std::fill(memory.gradient.begin(), memory.gradient.end(), 0.0F);
    for (const auto& round : planner.rows_of(step).rounds)
      for (const auto& slot : round.slots)
        for (const auto id : slot.ids)
          for (std::size_t i = 0; i < test::fake_trainer_memory::count; ++i)
            memory.gradient[i] += static_cast<float>((id * 7 + static_cast<int>(i)) % 13);
    const auto rate =
        static_cast<float>(train::learning_rate_at(settings, step, planner.step_count()));
    for (std::size_t i = 0; i < test::fake_trainer_memory::count; ++i) {
      memory.first[i] = 0.5F * memory.first[i] + memory.gradient[i];
      memory.second[i] += 1.0F;
      memory.parameters[i] -= rate * memory.first[i] * memory.second[i];
    }
  }
  return memory.parameters;
}

void check_job(const store::job_record& job, const std::vector<float>& undisturbed, ground& on) {
  if (job.status != job_status::succeeded)
    return on.violated(fmt::format("{} is {} after step {}: {}", job.id, name_of(job.status),
                                   job.step, job.error_message));
  const checkpoint* last = nullptr;
  for (const auto& [path, kept] : *on.checkpoints)
    if (path.starts_with(job.id + "/") && (!last || kept.step > last->step)) last = &kept;
  if (!last) return on.violated(job.id + " succeeded and left no checkpoint");
  if (last->parameters != undisturbed)
    on.violated(fmt::format("the parameters of {} are not those of the undisturbed job", job.id));
}

void check_request(serve::request_id id, const load::asked& request, ground& on) {
  const auto expected = test::expected_tokens(request.prompt, answer_tokens);
  const auto& got = request.tokens;
  if (got.size() > expected.size() || !std::equal(got.begin(), got.end(), expected.begin()))
    on.violated(
        fmt::format("request {}: token {} of {} is not the one it has alone", id,
                    std::mismatch(got.begin(), got.begin() + std::ssize(std::min(got, expected)),
                                  expected.begin())
                            .first -
                        got.begin(),
                    got.size()));
  if (request.withdrawn || request.broken) return;
  if (request.failure)
    on.violated(fmt::format("request {} failed: {}", id, request.failure->detail));
  else if (request.ends == 0)
    on.violated(fmt::format("request {} was lost after {} tokens", id, got.size()));
  else if (got.size() != expected.size())
    on.violated(
        fmt::format("request {} ended with {} of {} tokens", id, got.size(), expected.size()));
  if (request.ends > 1) on.violated(fmt::format("request {} ended {} times", id, request.ends));
}

void check_book(const actors::lease_board& book, ground& on) {
  std::set<std::string> names;
  if (const auto report = book.newest())
    for (const auto& device : report->devices)
      if (!names.insert(device.held.device).second)
        on.violated(device.held.device + " is in the book twice");
}

}  // namespace

void check_run(const load& asked, const cluster& of, const memory_database& database, ground& on) {
  for (const auto& [id, request] : asked.requests()) check_request(id, request, on);
  const auto parameters = undisturbed(on);
  for (const auto& job : database.jobs) check_job(job, parameters, on);
  for (const auto& head : of.heads())
    if (head.leases()) check_book(*head.leases(), on);
}

}  // namespace tandem::sim
