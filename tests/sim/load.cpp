#include "tests/sim/load.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::sim {

using namespace std::chrono_literals;
using store::job_status;

load::load(std::uint64_t seed, const knobs& how, timeline& time, cluster& on,
           std::shared_ptr<memory_store> store)
    : how_(how),
      time_(time),
      cluster_(on),
      store_(std::move(store)),
      load_(fold(seed, 2)),
      orders_(fold(seed, 4)) {
  store_->watch([this](const std::string& job) { hear_job(job); });
}

load::~load() { store_->unwatch(1); }

void load::begin() {
  start_job();
  ask_later();
  order_later();
}

void load::end() {
  calm_ = true;
  for (int i = 0; i < how_.devices; ++i) {
    actors::assign back;
    back.device = fmt::format("sim:{:02}", i);
    back.by_policy = true;
    // A coordinator may be away just now: asked again.
    for (int again = 0; again < 4; ++again)
      time_.after(again * 2s, [this, back] {
        caf::anon_send(cluster_.gateway(),
                       actors::submit_assign{back, [](const tandem::result<lease::lease>&) {}});
      });
  }
}

bool load::all_ended() const {
  return store_->unfinished_jobs().empty() &&
         std::all_of(requests_.begin(), requests_.end(), [](const auto& entry) {
           return entry.second.withdrawn || entry.second.ends > 0;
         });
}

// --- jobs
// ----------------------------------------------------------------------------------------

void load::start_job() {
  store::job_record job;
  job.model = "fake";
  job.status = job_status::queued;
  job.suffix = "sim";
  jobs_.push_back(store_->add_job(job)->id);
}

// As long as there is load, the next one follows.
void load::hear_job(const std::string& job) {
  caf::anon_send(cluster_.desk(), actors::job_changed{job});
  if (!calm_ && is_final(store_->find_job(job)->status))
    time_.after(0ns, [this] {
      if (!calm_) start_job();
    });
}

// --- requests
// ----------------------------------------------------------------------------------------

void load::ask_later() {
  const double rate = how_.requests_per_second > 0 ? how_.requests_per_second : 3.0 * how_.devices;
  time_.after(load_.exponential(rate), [this] {
    if (calm_) return;
    ask();
    ask_later();
  });
}

void load::ask() {
  const auto id = static_cast<serve::request_id>(requests_.size() + 1);
  std::vector<serve::token_id> prompt;
  const auto length = 3 + load_.below(30);
  for (std::uint64_t i = 0; i < length; ++i)
    prompt.push_back(static_cast<serve::token_id>(load_.below(50)));
  auto& kept = requests_[id];
  kept.prompt = prompt;
  kept.withdrawn = load_.chance(0.05);
  if (kept.withdrawn)
    time_.after(std::chrono::milliseconds(load_.below(400)),
                [this, id] { caf::anon_send(cluster_.gateway(), actors::withdraw{id}); });
  ++cluster_.board()->requests_inside;
  caf::anon_send(cluster_.gateway(),
                 actors::submit{test::request_of(id, std::move(prompt), answer_tokens),
                                [this, id](const serve::generation_delta& d) { hear(id, d); }});
}

void load::hear(serve::request_id id, const serve::generation_delta& delta) {
  auto& request = requests_.at(id);
  request.tokens.insert(request.tokens.end(), delta.tokens.begin(), delta.tokens.end());
  if (delta.finish == serve::finish_reason::none) return;
  ++request.ends;
  request.failure = delta.failure;
}

// --- orders by hand
// ----------------------------------------------------------------------------------------

void load::order_later() {
  time_.after(load_.exponential(how_.moves_per_second), [this] {
    if (calm_) return;
    actors::assign what;
    what.device = orders_.chance(0.01) ? "sim:none" : some_device(orders_, how_);
    what.by_policy = orders_.chance(0.2);
    what.as = static_cast<lease::role>(1 + orders_.below(3));
    caf::anon_send(cluster_.gateway(),
                   actors::submit_assign{what, [](const tandem::result<lease::lease>&) {}});
    order_later();
  });
}

std::string some_device(random_stream& from, const knobs& how) {
  return fmt::format("sim:{:02}", from.below(static_cast<std::uint64_t>(how.devices)));
}

}  // namespace tandem::sim
