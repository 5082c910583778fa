// Who draws a step's tokens: the device those that take nothing but their row, the host the rest.
#include "kernels/cpu/cpu_device.hpp"
#include "runtime/serve/device.hpp"
#include "runtime/serve/logit_passes.hpp"
#include "runtime/serve/sampler.hpp"
#include "runtime/serve/scheduler.hpp"
#include "runtime/serve/step_runner.hpp"
#include "tests/support/model_runner.hpp"
#include "tests/support/tiny_models.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <functional>
#include <map>

using namespace tandem;
using namespace tandem::serve;
using namespace tandem::test;

namespace {

// Draws as a GPU does, and keeps account of what is asked of it. Its memory is the host's, so that
// a row shows whether it was brought.
class drawing_device final : public kernels::cpu::cpu_device {
 public:
  drawing_device() : cpu_device({}, kernels::cpu::table_of(kernels::cpu::best_instruction_set())) {}

  bool draw(kernels::rows_in logits_BV, std::span<const kernels::draw_rule> how_B,
            std::span<std::int32_t> ids_B) override {
    if (!draws) return false;
    REQUIRE(how_B.size() == static_cast<std::size_t>(logits_BV.rows));
    ++calls;
    for (std::size_t b = 0; b < how_B.size(); ++b) {
      const float* const row = logits_BV.row(static_cast<std::int64_t>(b));
      ids_B[b] = drawn_from({row, static_cast<std::size_t>(logits_BV.columns)}, how_B[b]);
      if (refuses && refuses(b)) ids_B[b] = -1;
    }
    return true;
  }
  kernels::rows_out to_host(kernels::rows_out x_TX) override {
    brought.push_back(x_TX.rows);
    return x_TX;
  }

  bool draws = true;
  std::function<bool(std::size_t)> refuses;
  int calls = 0;
  std::vector<std::int64_t> brought;  // rows of each call

 private:
  static std::int32_t drawn_from(std::span<const float> logits_V, const kernels::draw_rule& how) {
    const peak top = largest(logits_V);
    if (how.temperature == 0.0F) return static_cast<std::int32_t>(top.id);
    std::vector<std::uint32_t> weights(logits_V.size());
    weigh(logits_V, top.value, 1.0F / how.temperature, how.min_p, weights);
    if (how.top_p < 1.0F)
      keep_nucleus(logits_V, top.value, 1.0F / how.temperature, double{how.top_p}, weights);
    return static_cast<std::int32_t>(serve::draw(weights, how.u));
  }
};

constexpr int slots = 24;

struct engine {
  explicit engine(const std::string& family = "llama_tied") {
    device.attach_calling_thread();
    auto loaded =
        (*model::model_source::open(tiny(family)))->load(device, *book, model::load_format::f32);
    if (!loaded) FAIL(loaded.error().detail);
    auto made = step_runner::create(device, *book, *loaded,
                                    {.max_sequences = slots,
                                     .max_batch_tokens = 128,
                                     .max_logit_rows = slots,
                                     .context_length = 64,
                                     .kv_blocks = 256,
                                     .kv = kernels::kv_format::f32});
    if (!made) FAIL(made.error().detail);
    runner = *std::move(made);
  }

  step_result run(step_plan plan) {
    if (auto begun = runner->begin(std::move(plan)); !begun) FAIL(begun.error().detail);
    while (runner->advance()) {
    }
    return runner->finish();
  }
  std::map<request_id, std::vector<token_logprob>> run(
      const std::vector<generation_request>& requests) {
    scheduler_settings settings;
    settings.max_sequences = settings.max_logit_rows = slots;
    settings.max_batch_tokens = 128;
    settings.prefill_chunk_tokens = 48;
    settings.context_length = 64;
    settings.kv_blocks = 256;
    scheduler core(settings);
    for (const auto& request : requests) REQUIRE(core.add(request, 0));
    std::map<request_id, std::vector<token_logprob>> texts;
    for (time_ns now = 0;; now += 1'000'000) {
      auto plan = core.schedule(now);
      if (plan.chunks.empty()) break;
      for (auto& event : core.complete(run(std::move(plan)), now))
        for (auto& token : event.tokens) texts[event.id].push_back(token);
    }
    runner->reset();
    return texts;
  }

  std::shared_ptr<memory::ledger> book = std::make_shared<memory::ledger>(std::uint64_t{1} << 30);
  drawing_device device;
  std::unique_ptr<step_runner> runner;
};

// A prompt's first step for each of these, one in each slot.
step_plan plan_of(const std::vector<sampling_parameters>& sampling) {
  step_plan plan;
  plan.number = 1;
  for (slot_index slot = 0; slot < std::ssize(sampling); ++slot) {
    slot_start start;
    start.slot = slot;
    start.sampling = sampling[static_cast<std::size_t>(slot)];
    start.prompt = {1, 2 + slot, 3};
    plan.starts.push_back(start);
    plan.chunks.push_back({slot, 0, start.prompt, {slot}, true, false, {}});
  }
  return plan;
}

std::vector<sampling_parameters> of_every_kind() {
  std::vector<sampling_parameters> kinds(11);
  kinds[0].temperature = 0.0F;
  kinds[2].temperature = 0.7F;
  kinds[3].top_p = 0.9F;
  kinds[4].min_p = 0.1F;
  kinds[5].top_k = 1;
  kinds[6].top_k = 5;  // from here on the host's
  kinds[7].logprobs = 2;
  kinds[8].logit_bias = {{7, 3.0F}};
  kinds[9].frequency_penalty = 0.5F;
  kinds[10].repetition_penalty = 1.3F;
  for (std::size_t i = 0; i < kinds.size(); ++i) kinds[i].seed = 100 + i;
  return kinds;
}

}  // namespace

TEST_CASE("a request's text does not depend on who draws its tokens") {
  std::vector<generation_request> requests;
  for (const auto& sampling : of_every_kind()) {
    generation_request r;
    r.id = requests.size() + 1;
    r.prompt = {3, static_cast<token_id>(5 + r.id), 8};
    r.sampling = sampling;
    r.stops.max_tokens = 12;
    requests.push_back(r);
    r.id += 100;  // likewise with end tokens that are banned for a while
    r.stops.min_tokens = 6;
    r.stops.eos_ids = {2, 4};
    requests.push_back(r);
  }
  engine e;
  e.device.draws = false;
  const auto by_the_host = e.run(requests);
  CHECK(e.device.calls == 0);
  e.device.draws = true;
  CHECK(e.run(requests) == by_the_host);
  CHECK(e.device.calls > 0);
  // Rows that it hands back are the host's.
  e.device.refuses = [](std::size_t row) { return row % 3 == 1; };
  CHECK(e.run(requests) == by_the_host);
}

TEST_CASE("rows that the device draws stay where they are") {
  engine e;
  e.run(plan_of(std::vector<sampling_parameters>(slots)));
  CHECK(e.device.calls == 1);
  CHECK(e.device.brought.empty());
}

TEST_CASE("rows of the host come without those far from them, near ones in one go") {
  std::vector<sampling_parameters> sampling(slots);
  for (const std::size_t slot : {1U, 3U, 20U}) sampling[slot].logprobs = 0;
  engine e;
  const auto done = e.run(plan_of(sampling));
  CHECK(e.device.brought == std::vector<std::int64_t>{3, 1});
  for (const auto& [slot, token] : done.sampled)
    CHECK((token.rank > 0) == (slot == 1 || slot == 3 || slot == 20));
}

TEST_CASE("capped logits are drawn by the host, but for the largest, and scored as capped") {
  std::vector<sampling_parameters> sampling(3);
  sampling[0].temperature = 0.0F;
  sampling[2].temperature = 0.0F;
  sampling[2].logprobs = 1;
  engine e("gemma2_softcaps");
  const auto done = e.run(plan_of(sampling));
  CHECK(e.device.calls == 1);
  CHECK(e.device.brought == std::vector<std::int64_t>{2});  // rows 1 and 2
  model_runner uncapped(tiny("gemma2_softcaps"));
  auto logits = uncapped.read({1, 4, 3}).back();
  const auto best = best_of(logits);
  const double before = log_probability(logits, best);
  for (float& logit : logits) logit = 2.5F * std::tanh(logit / 2.5F);
  REQUIRE(done.sampled.size() == 3);
  const auto& scored = done.sampled[2].token;
  CHECK(scored.id == best);
  CHECK(scored.logprob == Approx(log_probability(logits, best)).margin(1e-5));
  CHECK(std::fabs(before - double{scored.logprob}) > 1e-2);
}

TEST_CASE("a step with nothing for the device does not ask it") {
  std::vector<sampling_parameters> sampling(3);
  for (auto& s : sampling) s.top_k = 4;
  engine e;
  e.run(plan_of(sampling));
  CHECK(e.device.calls == 0);
  CHECK(e.device.brought == std::vector<std::int64_t>{3});
}

TEST_CASE("a sampler has a rule for what takes nothing but the row") {
  const auto kinds = of_every_kind();
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    CAPTURE(i);
    const auto rule = sampler(kinds[i], 0, {}, {}).rule(9);
    CHECK(rule.has_value() == (i < 6));
    if (!rule) continue;
    const bool greedy = i == 0 || i == 5;
    CHECK(rule->temperature == (greedy ? 0.0F : kinds[i].temperature));
    CHECK(rule->u == (greedy ? 0.0 : uniform(kinds[i].seed, 0, 9)));
    CHECK(rule->top_p == kinds[i].top_p);
    CHECK(rule->min_p == kinds[i].min_p);
  }
}
