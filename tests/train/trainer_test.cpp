// The trainer's promises beside its numbers: what it takes, what it refuses, and how it goes on.
#include "runtime/train/checkpoint.hpp"
#include "runtime/train/job_plan.hpp"
#include "runtime/train/lora_start.hpp"
#include "tests/support/golden.hpp"
#include "tests/support/random_model.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/training.hpp"

#include <cstring>

using namespace tandem;
using namespace tandem::test;
using memory::owner;
using train::order_kind;
using train::training_method;

namespace {

train::job_settings small(training_method method) {
  train::job_settings settings;
  settings.method = method;
  settings.rank = 4;
  settings.targets = {"q_proj", "o_proj", "up_proj"};
  settings.slots = 4;
  settings.sequence_length = 32;
  settings.learning_rate = 0.01;
  settings.serve_format = "bf16";
  return settings;
}

result<std::unique_ptr<train::trainer>> open(const train::job_settings& settings,
                                             std::uint64_t memory = std::uint64_t{1} << 30,
                                             int devices = 1) {
  static const auto device = kernels::cpu::make_backend({.cores = {}});
  device->attach_calling_thread();
  const auto book = std::make_shared<memory::ledger>(memory);
  std::shared_ptr<const model::weights> base;
  if (settings.method == training_method::lora) {
    const auto source = model::model_source::open(golden("tiny/llama_tied"));
    static memory::ledger forever(std::uint64_t{1} << 40);
    base = *(*source)->load(*device, forever, model::load_format::q8_0);
  }
  return train::trainer::open(*device, book, base,
                              {.job = "job",
                               .model_path = golden("tiny/llama_tied").string(),
                               .settings = settings,
                               .device_count = devices,
                               .device_rank = 0,
                               .checkpoint = {}});
}

void check_refused(const train::job_settings& settings, const std::string& param,
                   const std::string& says, int devices = 1) {
  const auto opened = open(settings, std::uint64_t{1} << 30, devices);
  REQUIRE_FALSE(opened);
  CHECK(opened.error().code == errc::bad_request);
  CHECK(opened.error().param == param);
  INFO(opened.error().detail);
  CHECK(opened.error().detail.find(says) != std::string::npos);
}

double loss_of(training_job& job, const std::vector<train::round_rows>& rounds) {
  double sum = 0.0;
  for (const auto& loss : job.evaluate(rounds.front().slots)) sum += loss.loss_sum;
  return sum / static_cast<double>(counted_in(rounds));
}

}  // namespace

TEST_CASE("the loss of further families is the truth's") {
  for (const std::string family : {"mixtral_window", "smollm3_skips_rope", "granite_multipliers",
                                   "gemma_first", "seed_oss_bias"}) {
    const golden_json truth("tiny/" + family + "/expected.json");
    const auto ids = ids_of(truth.root()["prompt_ids"]);
    double wanted = 0.0;
    for (const double logprob : numbers_of(truth.root()["logprob_of_next"])) wanted -= logprob;
    auto settings = small(training_method::full);
    settings.slots = 2;
    settings.sequence_length = 64;
    training_job job(golden("tiny/" + family), {.settings = settings});
    const auto rows = example_rows(ids, std::vector<bool>(ids.size(), true));
    INFO(family);
    CHECK(job.evaluate({rows, {}}).front().loss_sum == Approx(wanted).epsilon(1e-6));
  }
}

TEST_CASE("gradients are what central differences of the whole loss say, tensor by tensor") {
  // Not of a mixture: its loss jumps where a row's experts change.
  for (const std::string family :
       {"llama_tied", "qwen2_bias", "gemma3_local_global", "smollm3_skips_rope",
        "granite_multipliers", "gemma_first", "seed_oss_bias"}) {
    training_job job(golden("tiny/" + family), {.settings = small(training_method::full)});
    std::mt19937 random(8);
    const auto V = static_cast<int>(job.memory().masters->config.vocabulary_size);
    const auto rounds = random_rounds(random, 1, 4, V);
    job.accumulate(rounds);
    const auto gradient = job.memory().shard_gradient().floats;
    const std::vector<float> g(gradient.begin(), gradient.end());
    auto parameters = job.memory().parameters;
    const std::vector<float> start(parameters.begin(), parameters.end());
    for (const auto& tensor : job.memory().group.parameters) {
      double square = 0.0;
      for (std::size_t i = 0; i < tensor.floats; ++i)
        square += std::pow(static_cast<double>(g[tensor.first_float + i]), 2);
      const double norm = std::sqrt(square);
      if (norm < 1e-3) continue;  // float32 losses cannot tell so little
      // Along the gradient itself the loss changes by its norm.
      const double step = std::min(0.02, 0.01 / norm);
      std::array<double, 2> losses{};
      for (const int side : {0, 1}) {
        for (std::size_t i = tensor.first_float; i < tensor.first_float + tensor.floats; ++i)
          parameters[i] = start[i] + static_cast<float>((side == 1 ? step : -step) * g[i] / norm);
        losses[static_cast<std::size_t>(side)] = loss_of(job, rounds);
      }
      std::copy(start.begin(), start.end(), parameters.begin());
      INFO(family << ": " << tensor.name << ", norm " << norm);
      CHECK((losses[1] - losses[0]) / (2 * step) == Approx(norm).epsilon(5e-3));
    }
  }
}

TEST_CASE("a job takes what its plan says, by owner, and gives all of it back") {
  for (const auto method : {training_method::full, training_method::lora}) {
    const auto book = [&] {
      training_job job(golden("tiny/llama_tied"), {.settings = small(method)});
      const auto& plan = job.trainer().facts().memory;
      const auto& ledger = *job.book();
      CHECK(ledger.used_by(owner::gradients) == plan.gradients);
      CHECK(ledger.used_by(owner::optimizer) == plan.optimizer);
      CHECK(ledger.used_by(owner::activations) == plan.activations);
      CHECK(ledger.used_by(owner::workspace) == plan.workspace);
      if (method == training_method::full) {
        CHECK(ledger.used_by(owner::weights) == plan.parameters + plan.serving_copies);
        // Masters, gradients, m, v: 16 bytes a parameter, and what whole panels pad.
        CHECK(plan.parameters + plan.gradients + plan.optimizer <
              17 * static_cast<std::uint64_t>(job.trainer().facts().trainable_parameters));
      } else {
        CHECK(ledger.used_by(owner::adapters) == plan.parameters + plan.serving_copies);
      }
      const auto source = model::model_source::open(golden("tiny/llama_tied"));
      const auto forecast = train::trainer::forecast(
          job.device(), **source,
          {.job = "job", .model_path = {}, .settings = small(method), .checkpoint = {}});
      REQUIRE(forecast);
      CHECK(*forecast == plan);
      const auto before = ledger.used();
      std::mt19937 random(1);
      job.step(random_rounds(random, 2, 4, 320));
      CHECK(ledger.used() == before);
      return job.book();
    }();
    CHECK(book->used() == 0);
  }
}

TEST_CASE("recompute takes less memory for activations") {
  auto settings = small(training_method::full);
  const auto kept = open(settings);
  settings.recompute = true;
  const auto again = open(settings);
  REQUIRE(kept);
  REQUIRE(again);
  CHECK((*again)->facts().memory.activations < (*kept)->facts().memory.activations * 7 / 10);
}

TEST_CASE("a job that does not fit is refused with the numbers and the setting to change") {
  const auto settings = small(training_method::full);
  const auto fits = open(settings);
  REQUIRE(fits);
  const auto& plan = (*fits)->facts().memory;

  const auto no_room = open(settings, plan.total() - 1);
  REQUIRE_FALSE(no_room);
  CHECK(no_room.error().code == errc::no_memory);
  CHECK(no_room.error().param == "micro_batch");
  for (const std::string word : {"parameters", "gradients", "optimizer", "activations of 128 rows",
                                 "workspace", "recompute", "devices.memory_fraction", "MiB"})
    CHECK(no_room.error().detail.find(word) != std::string::npos);

  const auto hopeless = open(settings, plan.parameters);
  REQUIRE_FALSE(hopeless);
  CHECK(hopeless.error().param == "method");
  CHECK(hopeless.error().detail.find("lora") != std::string::npos);
  CHECK(open(settings, plan.total()).has_value());
}

TEST_CASE("settings that cannot be are refused by name") {
  auto settings = small(training_method::lora);
  settings.targets = {"c_attn", "lm_head"};
  check_refused(settings, "targets", "q_proj, k_proj, v_proj, o_proj, gate_proj");
  settings = small(training_method::lora);
  settings.targets.push_back("not_here");
  CHECK(open(settings).has_value());
  settings.rank = 0;
  check_refused(settings, "rank", "rank is 0");
  settings.rank = 8;
  settings.alpha = -1;
  check_refused(settings, "alpha", "alpha is -1");
  settings = small(training_method::full);
  settings.slots = 3;
  check_refused(settings, "slots", "power of two");
  settings.slots = 4;
  check_refused(settings, "slots", "8 devices cannot share 4 slots", 8);
  settings.sequence_length = 100'000;
  check_refused(settings, "sequence_length", "the model's 512");
  settings.sequence_length = 32;
  settings.serve_format = "native";
  check_refused(settings, "serve_format", "none of f32, bf16, fp8, q8_0, q4_1");
}

TEST_CASE("models with what training does not know are refused before anything is taken") {
  const auto device = kernels::cpu::make_backend({.cores = {}});
  for (const std::string family : {"gemma2_softcaps", "olmo2_wide_norms", "exaone4_window"}) {
    const auto source = model::model_source::open(golden("tiny/" + family));
    REQUIRE(source);
    for (const auto method : {training_method::lora, training_method::full}) {
      train::open_order order;
      order.settings = small(method);
      const auto plan = train::plan_job(*device, (*source)->config(), order);
      REQUIRE_FALSE(plan);
      CHECK(plan.error().code == errc::bad_request);
      CHECK(plan.error().detail.find("served only") != std::string::npos);
    }
  }
}

TEST_CASE("orders that do not fit the job are refused and cost nothing") {
  training_job job(golden("tiny/llama_tied"), {.settings = small(training_method::full)});
  auto& trainer = job.trainer();
  std::mt19937 random(1);
  const auto rounds = random_rounds(random, 1, 4, 320);
  const auto refuses = [&](const train::order& order, const std::string& says) {
    const auto begun = trainer.begin(order);
    REQUIRE_FALSE(begun);
    INFO(begun.error().detail);
    CHECK(begun.error().detail.find(says) != std::string::npos);
    CHECK_FALSE(trainer.busy());
  };
  auto order = job.order_of(order_kind::accumulate);
  order.slots = rounds.front().slots;
  order.scale = 0.1;
  auto wrong = order;
  wrong.job = "another";
  refuses(wrong, "'another'");
  wrong = order;
  wrong.slots.pop_back();
  refuses(wrong, "3 slots for a device of 4");
  wrong = order;
  wrong.slots[1].ids.back() = 320;
  refuses(wrong, "the 320 of the vocabulary");
  wrong = order;
  wrong.slots[1].targets.front() = -2;
  refuses(wrong, "the 320 of the vocabulary");
  wrong = order;
  wrong.slots[1].targets.pop_back();
  refuses(wrong, "targets for");
  wrong = order;
  wrong.slots[1].example_rows.back() += 1;
  refuses(wrong, "examples of");
  wrong = order;
  wrong.slots[0] = example_rows(std::vector<std::int32_t>(33, 1), std::vector<bool>(33, true));
  refuses(wrong, "a slot of 33 rows, the job was opened for 32");
  wrong = order;
  wrong.scale = std::nan("");
  refuses(wrong, "not finite");
  refuses(job.order_of(order_kind::reduce), "nobody to reduce");
  auto update = job.order_of(order_kind::update);
  update.step = 0;
  refuses(update, "step 0");

  REQUIRE(trainer.begin(order));
  const auto second = trainer.begin(order);
  REQUIRE_FALSE(second);
  CHECK(second.error().code == errc::conflict);
  CHECK_FALSE(trainer.finish());
  trainer.advance();
  trainer.give_up();
  CHECK_FALSE(trainer.busy());
  CHECK(job.step(rounds).loss > 0.0);
}

TEST_CASE("numbers that are not finite are reported, not hidden") {
  training_job job(golden("tiny/llama_tied"), {.settings = small(training_method::full)});
  job.memory().parameters[job.memory().group.parameters.back().first_float] = NAN;
  std::mt19937 random(1);
  const auto out = job.step(random_rounds(random, 1, 4, 320));
  CHECK_FALSE(std::isfinite(out.loss));
  CHECK_FALSE(std::isfinite(out.norm));
}

TEST_CASE("a job goes on from its checkpoint to the bit, on as many devices as there are") {
  for (const auto method : {training_method::full, training_method::lora}) {
    const auto settings = small(method);
    const temporary_folder folder;
    std::mt19937 random(5);
    std::vector<std::vector<train::round_rows>> steps;
    for (int s = 0; s < 4; ++s) steps.push_back(random_rounds(random, 2, 4, 320));

    training_job undisturbed(golden("tiny/llama_tied"), {.settings = settings, .devices = 2});
    std::filesystem::path written;
    for (std::size_t s = 0; s < 4; ++s) {
      undisturbed.step(steps[s]);
      if (s != 1) continue;
      train::checkpoint_facts facts;
      facts.job = "job";
      facts.step = 2;
      facts.settings = settings;
      facts.layout = undisturbed.memory().layout();
      const auto path = train::write_checkpoint(
          folder.path(), facts,
          {undisturbed.trainer(0).facts().shared, undisturbed.trainer(1).facts().shared}, 1);
      if (!path) FAIL(path.error().detail);
      written = *path;
    }
    for (const int devices : {1, 4}) {
      training_job resumed(golden("tiny/llama_tied"),
                           {.settings = settings, .devices = devices, .checkpoint = written});
      CHECK(resumed.trainer().facts().step == 2);
      for (std::size_t s = 2; s < 4; ++s) resumed.step(steps[s]);
      CHECK(resumed.parameters() == undisturbed.parameters());
    }
  }
}

TEST_CASE("a checkpoint of another job's layout is refused by its first other tensor") {
  const temporary_folder folder;
  training_job job(golden("tiny/llama_tied"), {.settings = small(training_method::lora)});
  train::checkpoint_facts facts;
  facts.job = "job";
  facts.step = 1;
  facts.settings = small(training_method::lora);
  facts.layout = job.memory().layout();
  const auto path =
      train::write_checkpoint(folder.path(), facts, {job.trainer().facts().shared}, 1);
  if (!path) FAIL(path.error().detail);
  auto settings = small(training_method::lora);
  settings.targets = {"o_proj"};
  auto device = kernels::cpu::make_backend({.cores = {}});
  const auto source = model::model_source::open(golden("tiny/llama_tied"));
  const auto book = std::make_shared<memory::ledger>(std::uint64_t{1} << 30);
  const auto base = (*source)->load(*device, *book, model::load_format::f32);
  const auto opened = train::trainer::open(
      *device, book, *base,
      {.job = "job", .model_path = {}, .settings = settings, .checkpoint = path->string()});
  REQUIRE_FALSE(opened);
  CHECK(opened.error().code == errc::bad_file);
  CHECK(opened.error().detail.find("q_proj") != std::string::npos);
}

TEST_CASE("zeros that lie equally far apart are one block") {
  using train::zero_block;
  using train::zero_run;
  CHECK(train::blocks_of({}).empty());
  const std::vector<zero_run> runs{{0, 5}, {10, 5}, {20, 5}, {30, 4}, {40, 4}, {100, 7}};
  CHECK(train::blocks_of(runs) ==
        std::vector<zero_block>{{0, 5, 10, 3}, {30, 4, 10, 2}, {100, 7, 7, 1}});
  // Of two distances the first is kept.
  CHECK(train::blocks_of(std::vector<zero_run>{{0, 2}, {4, 2}, {9, 2}}) ==
        std::vector<zero_block>{{0, 2, 4, 2}, {9, 2, 2, 1}});
}
