// Many weights versions in one batch, on tiny models with real arithmetic: scheduler and step
// runner together, as a device and its coordinator use them.
#include "kernels/cpu/cpu_backend.hpp"
#include "runtime/serve/device.hpp"
#include "runtime/serve/scheduler.hpp"
#include "runtime/serve/step_runner.hpp"
#include "tests/support/golden.hpp"
#include "tests/support/random_adapter.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <map>
#include <optional>

using namespace tandem;
using namespace tandem::serve;
using namespace tandem::test;

namespace {

std::filesystem::path tiny(const std::string& family) { return golden("tiny/" + family); }

generation_request ask(request_id id, variant_id variant, std::vector<token_id> prompt,
                       int max_tokens = 12) {
  generation_request r;
  r.id = id;
  r.variant = variant;
  r.prompt = std::move(prompt);
  r.sampling.temperature = 0.8F;
  r.sampling.seed = id;
  r.sampling.logprobs = 2;
  r.stops.max_tokens = max_tokens;
  return r;
}

std::vector<token_id> words(int count, int kind) {
  std::vector<token_id> ids;
  for (int i = 0; i < count; ++i) ids.push_back((kind * 37 + i * 11) % 90 + 1);
  return ids;
}

struct engine_options {
  model::load_format format = model::load_format::f32;
  std::int64_t kv_blocks = 256;
  bool prefix_cache = true;
};

class engine {
 public:
  explicit engine(const std::string& family, const engine_options& options = {})
      : family_(family), device(kernels::cpu::make_backend({})) {
    device->attach_calling_thread();
    base = load(options.format);
    const runner_limits limits{.max_sequences = 32,
                               .max_batch_tokens = 128,
                               .max_logit_rows = 32,
                               .context_length = 128,
                               .kv_blocks = options.kv_blocks,
                               .kv = kernels::kv_format::f32};
    auto made = step_runner::create(*device, *book, base, limits);
    if (!made) FAIL(made.error().detail);
    runner = *std::move(made);
    scheduler_settings settings;
    settings.max_sequences = limits.max_sequences;
    settings.max_batch_tokens = limits.max_batch_tokens;
    settings.max_logit_rows = limits.max_logit_rows;
    settings.prefill_chunk_tokens = 48;
    settings.context_length = limits.context_length;
    settings.kv_blocks = limits.kv_blocks;
    settings.prefix_cache = options.prefix_cache;
    core.emplace(settings);
  }

  std::shared_ptr<const model::weights> load(model::load_format format) {
    auto loaded = (*model::model_source::open(tiny(family_)))->load(*device, *book, format);
    if (!loaded) FAIL(loaded.error().detail);
    return *std::move(loaded);
  }
  std::shared_ptr<const model::adapter> adapter(std::uint64_t seed, int rank = 4) {
    return random_adapter(*device, *book, base->config, seed, {.rank = rank});
  }
  std::shared_ptr<const model::weights> other_weights(std::uint64_t seed) {
    auto made = load(model::load_format::f32);
    merge_into(*device, *made, *adapter(seed));
    return made;
  }

  bool step() {
    auto plan = core->schedule(now);
    if (plan.chunks.empty()) return false;
    last_plan = plan;
    if (auto begun = runner->begin(std::move(plan)); !begun) FAIL(begun.error().detail);
    while (runner->advance()) {
    }
    now += 1'000'000;
    for (auto& event : core->complete(runner->finish(), now)) {
      auto& text = texts[event.id];
      for (auto& token : event.tokens) text.push_back(token);
      for (auto& score : event.prompt_logprobs) scores[event.id].push_back(score);
      if (event.finish != finish_reason::none) cached[event.id] = event.cached_tokens;
    }
    return true;
  }
  void run(const std::vector<generation_request>& requests) {
    for (const auto& request : requests) REQUIRE(core->add(request, now));
    while (step()) {
    }
  }

  std::string family_;
  std::shared_ptr<memory::ledger> book = std::make_shared<memory::ledger>(std::uint64_t{4} << 30);
  std::unique_ptr<kernels::backend> device;
  std::shared_ptr<const model::weights> base;
  std::unique_ptr<step_runner> runner;
  std::optional<scheduler> core;
  time_ns now = 0;
  step_plan last_plan;
  std::map<request_id, std::vector<token_logprob>> texts;
  std::map<request_id, std::vector<token_logprob>> scores;
  std::map<request_id, int> cached;
};

}  // namespace

TEST_CASE("twenty adapters and the base in one batch: each text is what it is alone") {
  for (const std::string family :
       {"llama_tied", "qwen2_bias", "gemma3_local_global", "phi3_fused", "qwen3_moe"}) {
    const auto format = family == "qwen2_bias" ? model::load_format::q8_0 : model::load_format::f32;
    engine together(family, {.format = format});
    engine alone(family, {.format = format, .prefix_cache = false});
    std::vector<generation_request> requests;
    for (variant_id id = 0; id <= 20; ++id) {
      if (id > 0) {
        const int rank = 1 + static_cast<int>(id) % 7;
        REQUIRE(together.runner->add_variant(id, {id, together.adapter(id, rank), nullptr}));
        REQUIRE(alone.runner->add_variant(id, {id, alone.adapter(id, rank), nullptr}));
      }
      // Half of them ask the same thing, so that only the adapter tells them apart.
      const int kind = id % 2 == 0 ? 0 : static_cast<int>(id);
      requests.push_back(ask(id + 1, id, words(9 + kind, kind), 10 + static_cast<int>(id % 3)));
    }
    together.run(requests);
    for (const auto& request : requests) alone.run({request});
    INFO(family);
    for (const auto& request : requests) {
      CAPTURE(request.variant);
      CHECK(together.texts.at(request.id) == alone.texts.at(request.id));
    }
    CHECK(together.texts.at(1) != together.texts.at(3));
    CHECK(together.texts.at(3) != together.texts.at(5));
  }
}

TEST_CASE("one step serves several whole weights beside the base and its adapters") {
  for (const std::string family : {"llama31_rope_untied", "mistral_window", "qwen3_qknorm"}) {
    engine together(family);
    engine alone(family, {.prefix_cache = false});
    for (auto* e : {&together, &alone}) {
      REQUIRE(e->runner->add_variant(1, {1, nullptr, e->other_weights(5)}));
      REQUIRE(e->runner->add_variant(2, {2, e->adapter(6), nullptr}));
      REQUIRE(e->runner->add_variant(3, {3, nullptr, e->other_weights(7)}));
    }
    std::vector<generation_request> requests;
    for (request_id id = 1; id <= 12; ++id)
      requests.push_back(ask(id, (id * 5) % 4, words(20, static_cast<int>(id % 2))));
    requests[4].sampling.prompt_logprobs = 1;
    requests[7].sampling.prompt_logprobs = 1;
    together.run(requests);
    for (const auto& request : requests) alone.run({request});
    INFO(family);
    for (const auto& request : requests) {
      CAPTURE(request.id, request.variant);
      CHECK(together.texts.at(request.id) == alone.texts.at(request.id));
    }
    CHECK(together.scores == alone.scores);
    REQUIRE(together.scores.size() == 2);
    CHECK(together.texts.at(2) != together.texts.at(4));
  }
}

TEST_CASE("results come in the plan's order, whatever order its rows were computed in") {
  engine e("llama_tied");
  REQUIRE(e.runner->add_variant(1, {1, nullptr, e.other_weights(5)}));
  REQUIRE(e.runner->add_variant(2, {2, e.adapter(6), nullptr}));
  step_plan plan;
  plan.number = 1;
  const std::array<variant_id, 4> variants{1, 2, 0, 1};
  for (slot_index slot = 0; slot < 4; ++slot) {
    slot_start start;
    start.slot = slot;
    start.variant = variants[static_cast<std::size_t>(slot)];
    start.prompt = words(8, slot);
    plan.starts.push_back(start);
    plan.chunks.push_back({slot, 0, start.prompt, {slot}, true, false, {}});
  }
  REQUIRE(e.runner->begin(plan));
  int pieces = 1;
  while (e.runner->advance()) ++pieces;
  const auto done = e.runner->finish();
  REQUIRE(done.sampled.size() == 4);
  for (slot_index slot = 0; slot < 4; ++slot)
    CHECK(done.sampled[static_cast<std::size_t>(slot)].slot == slot);
  const int layers = static_cast<int>(e.base->layers.size());
  CHECK(pieces == 2 * (layers + 2) + 1);  // the base with its adapter, the other weights, sampling
}

TEST_CASE("the prefix cache never crosses versions") {
  engine e("llama_tied");
  REQUIRE(e.runner->add_variant(1, {1, e.adapter(1), nullptr}));
  REQUIRE(e.runner->add_variant(2, {1, e.adapter(2), nullptr}));  // another job's version 1
  engine fresh("llama_tied", {.prefix_cache = false});
  REQUIRE(fresh.runner->add_variant(1, {1, fresh.adapter(1), nullptr}));
  REQUIRE(fresh.runner->add_variant(2, {1, fresh.adapter(2), nullptr}));
  request_id id = 0;
  for (const variant_id variant : {0, 1, 2}) {
    e.run({ask(++id, variant, words(70, 3))});
    CHECK(e.cached.at(id) == 0);
    e.run({ask(++id, variant, words(70, 3))});
    CHECK(e.cached.at(id) == 64);
    fresh.run({ask(id, variant, words(70, 3))});
    CHECK(e.texts.at(id) == fresh.texts.at(id));
  }
}

TEST_CASE("a preempted sequence comes back on the version it began with") {
  engine tight("llama_tied", {.kv_blocks = 14});
  engine alone("llama_tied");
  std::vector<generation_request> requests;
  for (variant_id id = 1; id <= 5; ++id) {
    REQUIRE(tight.runner->add_variant(id, {id, tight.adapter(id), nullptr}));
    REQUIRE(alone.runner->add_variant(id, {id, alone.adapter(id), nullptr}));
    requests.push_back(ask(id, id, words(15, 1), 60));
  }
  tight.run(requests);
  CHECK(tight.core->counts().preemptions > 0);
  for (const auto& request : requests) {
    alone.run({request});
    CHECK(tight.texts.at(request.id) == alone.texts.at(request.id));
  }
}

TEST_CASE("sequences of a lost device come back on the version they began with") {
  engine e("llama_tied");
  engine alone("llama_tied");
  for (auto* one : {&e, &alone})
    REQUIRE(one->runner->add_variant(1, {1, one->adapter(1), nullptr}));
  const auto request = ask(1, 1, words(15, 1), 20);
  REQUIRE(e.core->add(request, 0));
  for (int i = 0; i < 6; ++i) e.step();
  e.core->device_lost();
  e.runner->reset();
  while (e.step()) {
  }
  alone.run({request});
  CHECK(e.texts.at(1) == alone.texts.at(1));
}

TEST_CASE("a removed version is gone once the step in flight is done, and its memory with it") {
  engine e("llama_tied");
  auto adapter = e.adapter(1);
  const auto held = e.book->used_by(memory::owner::adapters);
  REQUIRE(held > 0);
  REQUIRE(e.runner->add_variant(1, {1, std::exchange(adapter, nullptr), nullptr}));
  REQUIRE(e.core->add(ask(1, 1, words(5, 1), 30), 0));
  e.step();
  REQUIRE(e.runner->begin(e.core->schedule(e.now)));
  REQUIRE(e.runner->advance());
  e.runner->remove_variant(1);
  CHECK(e.book->used_by(memory::owner::adapters) == held);
  while (e.runner->advance()) {
  }
  e.core->complete(e.runner->finish(), e.now);
  CHECK(e.book->used_by(memory::owner::adapters) == 0);
  auto refused = e.runner->begin(e.core->schedule(e.now));
  REQUIRE_FALSE(refused);
  CHECK_THAT(refused.error().detail, Catch::Contains("variant 1, which is not here"));
}

TEST_CASE("variants that cannot be are refused") {
  engine e("llama_tied");
  engine other("qwen3_moe");
  CHECK_FALSE(e.runner->add_variant(0, {1, e.adapter(1), nullptr}));
  CHECK_FALSE(e.runner->add_variant(1, {1, nullptr, nullptr}));
  CHECK_FALSE(e.runner->add_variant(1, {1, nullptr, other.base}));
  REQUIRE(e.runner->add_variant(1, {1, e.adapter(1), nullptr}));
  CHECK(e.runner->add_variant(1, {2, e.adapter(1), nullptr}).error().code == errc::conflict);
  e.runner->remove_variant(7);
}
