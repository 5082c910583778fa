#include "tests/sim/load.hpp"

#include <algorithm>
#include <utility>

namespace tandem::sim {

using namespace std::chrono_literals;
using store::job_status;

namespace {

constexpr auto ask_again_pause = 50ms;

}  // namespace

load::load(std::uint64_t seed, const knobs& how, timeline& time, cluster& on,
           std::shared_ptr<ground> ground, std::shared_ptr<const memory_database> database)
    : how_(how),
      time_(time),
      cluster_(on),
      on_(std::move(ground)),
      database_(std::move(database)),
      load_(fold(seed, 2)),
      orders_(fold(seed, 4)) {
  cluster_.listen([this](const head& which) { head_gone(which); },
                  [this](const store::job_record& job) { hear_job(job); });
}

void load::begin() {
  start_job();
  ask_later();
  order_later();
}

void load::end() {
  calm_ = true;
  for (const auto& device : cluster_.devices()) {
    actors::assign back;
    back.device = device;
    back.by_policy = true;
    // A coordinator may be away just now, or a head: asked again.
    for (int again = 0; again < 6; ++again) time_.after(again * 2s, [this, back] { order(back); });
  }
}

bool load::all_ended() const {
  return unheard_ == 0 &&
         std::ranges::all_of(database_->jobs,
                             [](const auto& job) { return is_final(job.status); }) &&
         std::ranges::all_of(requests_, [](const auto& entry) {
           return entry.second.withdrawn || entry.second.broken || entry.second.ends > 0;
         });
}

// While one does not know yet that another leads, clients find both.
head* load::some_head() {
  const auto open = cluster_.open_heads();
  return open.empty() ? nullptr : open[open.size() == 1 ? 0 : load_.below(open.size())];
}

// --- jobs
// ----------------------------------------------------------------------------------------

void load::start_job() {
  store::job_record job;
  job.model = "fake";
  job.status = job_status::queued;
  job.suffix = "sim";
  auto* to = some_head();
  if (to && to->store()->add_job(job)) return;
  time_.after(ask_again_pause, [this] {
    if (!calm_) start_job();
  });
}

// As long as there is load, the next one follows.
void load::hear_job(const store::job_record& job) {
  if (calm_ || !is_final(job.status)) return;
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
    std::vector<serve::token_id> prompt;
    const auto length = 3 + load_.below(30);
    for (std::uint64_t i = 0; i < length; ++i)
      prompt.push_back(static_cast<serve::token_id>(load_.below(50)));
    ++unheard_;
    ask(std::move(prompt));
    ask_later();
  });
}

void load::ask(std::vector<serve::token_id> prompt) {
  auto* to = some_head();
  if (!to) return time_.after(ask_again_pause, [this, prompt = std::move(prompt)] { ask(prompt); });
  --unheard_;
  const auto id = static_cast<serve::request_id>(requests_.size() + 1);
  auto& kept = requests_[id];
  kept.prompt = prompt;
  kept.of = to;
  kept.withdrawn = load_.chance(0.05);
  if (kept.withdrawn)
    time_.after(std::chrono::milliseconds(load_.below(400)),
                [gateway = to->gateway(), id] { caf::anon_send(gateway, actors::withdraw{id}); });
  ++to->board()->requests_inside;
  caf::anon_send(to->gateway(),
                 actors::submit{test::request_of(id, std::move(prompt), answer_tokens),
                                [this, id](const serve::generation_delta& d) { hear(id, d); }});
}

void load::hear(serve::request_id id, const serve::generation_delta& delta) {
  auto& request = requests_.at(id);
  if (request.broken)
    return on_->violated(fmt::format("request {} was answered by a head that is dead", id));
  request.tokens.insert(request.tokens.end(), delta.tokens.begin(), delta.tokens.end());
  if (delta.finish == serve::finish_reason::none) return;
  ++request.ends;
  request.failure = delta.failure;
}

// The client sees its stream break, and asks anew wherever it is heard.
void load::head_gone(const head& which) {
  std::vector<std::vector<serve::token_id>> again;
  for (auto& [id, request] : requests_) {
    if (request.of != &which || request.ends > 0 || request.broken) continue;
    request.broken = true;
    if (!request.withdrawn) again.push_back(request.prompt);
  }
  broken_ += again.size();
  unheard_ += again.size();
  for (auto& prompt : again)
    time_.after(ask_again_pause, [this, prompt = std::move(prompt)] { ask(prompt); });
}

// --- orders by hand
// ----------------------------------------------------------------------------------------

void load::order_later() {
  time_.after(load_.exponential(how_.moves_per_second), [this] {
    if (calm_) return;
    actors::assign what;
    what.device = orders_.chance(0.01)
                      ? "none"
                      : cluster_.devices()[orders_.below(cluster_.devices().size())];
    what.by_policy = orders_.chance(0.2);
    what.as = static_cast<lease::role>(1 + orders_.below(3));
    order(what);
    order_later();
  });
}

void load::order(const actors::assign& what) {
  if (auto* to = some_head())
    caf::anon_send(to->gateway(),
                   actors::submit_assign{what, [](const tandem::result<lease::lease>&) {}});
}

}  // namespace tandem::sim
