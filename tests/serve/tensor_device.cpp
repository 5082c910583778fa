// Devices that hold one model together answer as one device, which says what one alone would say.
#include "tests/support/loaded_device.hpp"
#include "tests/support/tiny_models.hpp"

using namespace tandem;
using namespace tandem::serve;
using namespace tandem::test;

namespace {

// A plan's answer: what was sampled, and the prompt's scores.
step_result run(device& on, step_plan plan) {
  if (auto begun = on.begin(std::move(plan)); !begun) FAIL(begun.error().detail);
  while (on.advance()) {
  }
  return on.finish();
}

step_result without_time(step_result answer) {
  answer.device_ns = 0;
  return answer;
}

slot_start starting(slot_index slot, std::vector<token_id> prompt) {
  slot_start start;
  start.slot = slot;
  start.prompt = std::move(prompt);
  start.sampling.temperature = 0.9F;
  start.sampling.logprobs = 4;
  start.sampling.prompt_logprobs = 2;
  return start;
}

// A prompt's scores and what follows it, on this version.
step_result scores(device& on, variant_id variant) {
  step_plan plan;
  plan.starts = {starting(3, {5, 9, 2, 7})};
  plan.starts.front().variant = variant;
  plan.chunks = {{3, 0, {5, 9, 2, 7}, {9}, true, true, {}}};
  auto answer = without_time(run(on, plan));
  plan = {};
  plan.releases = {3};
  run(on, plan);
  return answer;
}

std::uint64_t used_by(const device_facts& facts, memory::owner who) {
  return facts.memory_by_owner[static_cast<std::size_t>(who)];
}

}  // namespace

TEST_CASE("a group says what one device says, sampled tokens and log-probabilities alike") {
  for (const std::string family : families) {
    if (family == "qwen3_moe") continue;
    loaded_device one({.name = "cpu:0", .cores = {0}, .memory_bytes = std::uint64_t{1} << 30},
                      family);
    for (const int ranks : {2, 4}) {
      INFO(family << " on " << ranks);
      loaded_device group(group_of(ranks), family);
      CHECK(group.text(0, 0) == one.text(0, 0));
      CHECK(group.text(0, 1, 1.0F) == one.text(0, 1, 1.0F));
      step_plan plan;
      plan.starts = {starting(0, {5, 9, 2}), starting(2, {1, 1, 3})};
      plan.chunks = {{0, 0, {5, 9, 2}, {3}, true, true, {}},
                     {2, 0, {1, 1, 3}, {7}, true, false, {}}};
      CHECK(without_time(run(*group.device, plan)) == without_time(run(*one.device, plan)));
      one.device->reset();
    }
  }
}

TEST_CASE("a group shows the memory and threads of all, and the whole model's size") {
  loaded_device one;
  loaded_device group(group_of(2));
  const auto facts = group.device->facts();
  CHECK(facts.name == "cpu:0+cpu:1");
  CHECK(facts.threads == 2);
  CHECK(facts.memory_capacity == std::uint64_t{2} << 30);
  CHECK(group.model.facts == facts);
  CHECK(group.model.parameter_count == one.model.parameter_count);
  CHECK(group.model.precision == one.model.precision);
  CHECK(group.model.kv_format == one.model.kv_format);
  CHECK(group.model.kv == nullptr);
  // As many blocks for as many bytes, half of each on either.
  CHECK(group.model.kv_blocks == one.model.kv_blocks);
  CHECK(used_by(facts, memory::owner::kv_blocks) ==
        used_by(one.device->facts(), memory::owner::kv_blocks));
}

TEST_CASE("a plan that does not fit is refused by all ranks, and the group goes on") {
  loaded_device one;
  loaded_device group(group_of(2));
  step_plan bad;
  bad.chunks = {{3, 0, {1, 2}, {0}, true, false, {}}};
  const auto refused = group.device->begin(bad);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().detail == one.device->begin(bad).error().detail);
  CHECK(group.text(0, 0) == one.text(0, 0));
}

TEST_CASE("a step given up in the middle leaves nothing behind on any rank") {
  loaded_device one;
  loaded_device group(group_of(2));
  step_plan plan;
  plan.starts = {starting(0, {5, 9, 2, 7})};
  plan.chunks = {{0, 0, {5, 9, 2, 7}, {3}, true, false, {}}};
  REQUIRE(group.device->begin(plan));
  CHECK(group.device->advance());
  CHECK(group.device->advance());
  group.device->reset();
  CHECK(group.text(0, 0) == one.text(0, 0));
}

TEST_CASE("an adapter of another device is divided among the ranks, and given back") {
  trainer_side trainer;
  loaded_device one;
  loaded_device group(group_of(2));
  const auto adapter = trainer.adapter();
  REQUIRE(one.device->add_variant(1, {1, adapter, nullptr}));
  const auto added = group.device->add_variant(1, {1, adapter, nullptr});
  if (!added) FAIL(added.error().detail);
  CHECK(used_by(*added, memory::owner::adapters) > adapter->layout.bytes);  // A is on both
  CHECK(group.text(1, 0) == one.text(1, 0));
  CHECK(group.text(1, 0) != group.text(0, 1));
  group.device->remove_variant(1);
  CHECK(group.held(memory::owner::adapters) == 0);
}

TEST_CASE("a LoRA checkpoint is read into the ranks' parts") {
  trainer_side trainer;
  loaded_device one;
  loaded_device group(group_of(4));
  const auto adapter = trainer.adapter(5);
  temporary_folder folder;
  train::job_settings settings;
  settings.rank = 5;
  settings.alpha = 8.0;
  settings.targets = every_target();
  const auto path =
      checkpoint_of(folder, settings, numbers_in(adapter->memory, adapter->layout.bytes));
  const auto read = group.device->load_variant(path, 3);
  if (!read) FAIL(read.error().detail);
  CHECK(read->version == 3);
  REQUIRE(group.device->add_variant(1, *read));
  REQUIRE(one.device->add_variant(1, {1, adapter, nullptr}));
  CHECK(group.text(1, 1) == one.text(1, 1));
}

TEST_CASE("an adapter that one rank has no room for is taken by none") {
  trainer_side trainer;
  const loaded_device roomy(group_of(2));
  std::uint64_t used = 0;
  for (const auto bytes : roomy.device->facts().memory_by_owner) used += bytes;
  auto spec = group_of(2);
  spec.ranks[1].memory_bytes = used / 2 + 100'000;
  loaded_device tight(spec);
  const auto refused = tight.device->add_variant(1, {1, trainer.adapter(64), nullptr});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::no_memory);
  CHECK(tight.held(memory::owner::adapters) == 0);
  CHECK(tight.text(0, 0) == loaded_device().text(0, 0));
}

TEST_CASE("what a group cannot do is refused with the setting to change") {
  const auto says_so = [](const error& why) {
    CHECK(why.code == errc::unsupported);
    CHECK(why.param == "model.tensor_parallel");
    CHECK_THAT(why.detail, Catch::Contains("model.tensor_parallel 1"));
  };
  const auto device = make_device(group_of(2));
  device->attach_calling_thread();
  const auto loaded = device->load(order_for("qwen3_moe"));
  REQUIRE_FALSE(loaded);
  says_so(loaded.error());
  CHECK(device->load(order_for("llama_tied")));
}

TEST_CASE(
    "a checkpoint of full training is read into the ranks' parts, in the job's serve_format") {
  const std::string format = GENERATE("f32", "bf16", "fp8", "q8_0", "q4_1");
  const std::string family = GENERATE("llama_tied", "gemma3_local_global", "phi3_fused");
  trainer_side trainer(family);
  merge_into(*trainer.backend, *trainer.base, *trainer.adapter());
  temporary_folder folder;
  train::job_settings settings;
  settings.method = train::training_method::full;
  settings.serve_format = format;
  const auto path = checkpoint_of(
      folder, settings, numbers_in(trainer.base->memory, trainer.base->memory.bytes().size()));
  loaded_device one({.name = "cpu:0", .cores = {0}, .memory_bytes = std::uint64_t{1} << 30},
                    family);
  loaded_device group(group_of(2), family);
  const auto before = group.held(memory::owner::weights);
  int pauses = 0;
  auto read = group.device->load_variant(path, 3, [&pauses] { ++pauses; });
  if (!read) FAIL(read.error().detail);
  CHECK(pauses > 10);
  REQUIRE(group.device->add_variant(1, *read));
  auto whole = one.device->load_variant(path, 3);
  REQUIRE(whole);
  REQUIRE(one.device->add_variant(1, *whole));
  INFO(family << " in " << format);
  CHECK(group.text(1, 1) == one.text(1, 1));
  CHECK(scores(*group.device, 1) == scores(*one.device, 1));
  CHECK(scores(*group.device, 1) != scores(*group.device, 0));
  group.device->remove_variant(1);
  *read = {};
  CHECK(group.held(memory::owner::weights) == before);
}
