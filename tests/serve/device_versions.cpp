// A real CPU device takes versions, gives them back, and reads them out of checkpoints.
#include "kernels/cpu/cpu_backend.hpp"
#include "runtime/serve/device.hpp"
#include "runtime/train/checkpoint.hpp"
#include "runtime/train/serving_copy.hpp"
#include "tests/support/golden.hpp"
#include "tests/support/random_adapter.hpp"
#include "tests/support/temporary_folder.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::serve;
using namespace tandem::test;

namespace {

constexpr auto family = "llama_tied";

// Parameters as a trainer would show them to the checkpoint writer.
class shown_parameters final : public train::trainer_memory {
 public:
  explicit shown_parameters(std::vector<float> numbers)
      : parameters_(std::move(numbers)),
        moments_(parameters_.size()),
        layout_{{"everything", 0, parameters_.size(), true}} {}
  train::state_view view() const override {
    return {parameters_, moments_, moments_, 0, parameters_.size()};
  }
  const std::vector<train::parameter>& layout() const override { return layout_; }

 private:
  std::vector<float> parameters_;
  std::vector<float> moments_;
  std::vector<train::parameter> layout_;
};

std::vector<float> numbers_in(const memory::arena& arena, std::size_t bytes) {
  const auto* first = reinterpret_cast<const float*>(arena.bytes().data());
  return {first, first + bytes / sizeof(float)};
}

std::string checkpoint_of(const temporary_folder& folder, const train::job_settings& settings,
                          std::vector<float> numbers) {
  train::checkpoint_facts facts;
  facts.job = "ftjob-1";
  facts.step = 3;
  facts.settings = settings;
  const auto memory = std::make_shared<shown_parameters>(std::move(numbers));
  facts.layout = memory->layout();
  auto written = train::write_checkpoint(folder.path(), facts, {memory}, 3);
  if (!written) FAIL(written.error().detail);
  return written->string();
}

struct loaded_device {
  explicit loaded_device(std::uint64_t bytes = std::uint64_t{1} << 30)
      : device(make_device({.name = "cpu:0", .cores = {0}, .memory_bytes = bytes})) {
    device->attach_calling_thread();
    load_order order;
    order.path = golden(std::string("tiny/") + family).string();
    order.max_sequences = 4;
    order.max_batch_tokens = 32;
    order.kv_bytes = 1 << 20;
    auto loaded = device->load(order);
    if (!loaded) FAIL(loaded.error().detail);
  }
  std::uint64_t held(memory::owner who) const {
    return device->facts().memory_by_owner[static_cast<std::size_t>(who)];
  }
  // Greedy, from the prompt, on this version.
  std::vector<token_id> text(variant_id variant, slot_index slot) {
    std::vector<token_id> ids;
    slot_start start;
    start.slot = slot;
    start.variant = variant;
    start.sampling.temperature = 0;
    start.prompt = {5, 9, 2, 7, 7, 1};
    step_plan plan;
    plan.starts = {start};
    plan.chunks = {{slot, 0, start.prompt, {slot * 2, slot * 2 + 1}, true, false, {}}};
    for (int i = 0; i < 10; ++i) {
      if (auto begun = device->begin(plan); !begun) FAIL(begun.error().detail);
      while (device->advance()) {
      }
      ids.push_back(device->finish().sampled.front().token.id);
      plan = {};
      plan.chunks = {{slot, 6 + i, {ids.back()}, {}, true, false, {}}};
    }
    plan.chunks.clear();
    plan.releases = {slot};
    REQUIRE(device->begin(plan));
    while (device->advance()) {
    }
    device->finish();
    return ids;
  }
  std::unique_ptr<serve::device> device;
};

// A trainer's device: an adapter and whole weights in a memory of their own.
struct trainer_side {
  trainer_side() : backend(kernels::cpu::make_backend({})) {
    backend->attach_calling_thread();
    auto read = (*model::model_source::open(golden(std::string("tiny/") + family)))
                    ->load(*backend, *book, model::load_format::f32);
    if (!read) FAIL(read.error().detail);
    base = *std::move(read);
  }
  std::shared_ptr<model::adapter> adapter(int rank = 4) {
    auto made = random_adapter(*backend, *book, base->config, 3, {.rank = rank});
    made->book = book;
    return made;
  }
  std::shared_ptr<memory::ledger> book = std::make_shared<memory::ledger>(std::uint64_t{4} << 30);
  std::unique_ptr<kernels::backend> backend;
  std::shared_ptr<const model::weights> base;
};

}  // namespace

TEST_CASE("an adapter of another device is copied into this one's memory, and given back") {
  trainer_side trainer;
  loaded_device here;
  auto adapter = trainer.adapter();
  const auto bytes = adapter->layout.bytes;
  const std::weak_ptr<const model::adapter> watched = adapter;
  const auto plain = here.text(0, 0);
  auto added = here.device->add_variant(1, {1, std::exchange(adapter, nullptr), nullptr});
  REQUIRE(added);
  CHECK(watched.expired());
  CHECK(added->memory_by_owner[static_cast<std::size_t>(memory::owner::adapters)] == bytes);
  CHECK(here.text(1, 1) != plain);
  CHECK(here.text(0, 2) == plain);
  here.device->remove_variant(1);
  CHECK(here.held(memory::owner::adapters) == 0);
}

TEST_CASE("an adapter that does not fit is refused with the numbers, and takes nothing") {
  trainer_side trainer;
  const loaded_device roomy;
  std::uint64_t used = 0;
  for (const auto bytes : roomy.device->facts().memory_by_owner) used += bytes;
  loaded_device tight(used + 10'000);
  const auto refused = tight.device->add_variant(1, {1, trainer.adapter(16), nullptr});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::no_memory);
  CHECK_THAT(refused.error().detail,
             Catch::Contains("an adapter of rank 16") && Catch::Contains("are free"));
  CHECK(tight.held(memory::owner::adapters) == 0);
}

TEST_CASE("whole weights in another device's memory are refused") {
  trainer_side trainer;
  loaded_device here;
  const auto refused = here.device->add_variant(1, {1, nullptr, trainer.base});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::bad_request);
}

TEST_CASE("an adapter's memory is given back after its device is gone") {
  std::shared_ptr<const model::adapter> last;
  {
    trainer_side trainer;
    last = trainer.adapter();
  }
  CHECK(last->book->used_by(memory::owner::adapters) == last->layout.bytes);
}

TEST_CASE("a LoRA checkpoint gives the adapter it was written from") {
  trainer_side trainer;
  loaded_device here;
  const auto adapter = trainer.adapter(5);
  temporary_folder folder;
  train::job_settings settings;
  settings.rank = 5;
  settings.alpha = 8.0;
  settings.targets = every_target();
  const auto path =
      checkpoint_of(folder, settings, numbers_in(adapter->memory, adapter->layout.bytes));
  const auto read = here.device->load_variant(path, 3);
  if (!read) FAIL(read.error().detail);
  CHECK(read->version == 3);
  REQUIRE(here.device->add_variant(1, *read));
  REQUIRE(here.device->add_variant(2, {1, adapter, nullptr}));
  CHECK(here.text(1, 1) == here.text(2, 2));
  CHECK(here.text(1, 1) != here.text(0, 0));
}

TEST_CASE("a checkpoint of full training gives weights in the job's serve_format") {
  const std::string format = GENERATE("f32", "bf16", "q8_0");
  trainer_side trainer;
  loaded_device here;
  merge_into(*trainer.backend, *trainer.base, *trainer.adapter());
  temporary_folder folder;
  train::job_settings settings;
  settings.method = train::training_method::full;
  settings.serve_format = format;
  const auto path = checkpoint_of(
      folder, settings, numbers_in(trainer.base->memory, trainer.base->memory.bytes().size()));
  const auto before = here.held(memory::owner::weights);
  auto read = here.device->load_variant(path, 3);
  if (!read) FAIL(read.error().detail);
  REQUIRE(read->weights);
  CHECK(read->weights->precision == format);
  CHECK(read->weights->version == 3);
  CHECK(here.held(memory::owner::weights) == before + read->weights->memory.bytes().size());
  REQUIRE(here.device->add_variant(1, *read));
  CHECK(here.text(1, 1) != here.text(0, 0));
  here.device->remove_variant(1);
  *read = {};
  CHECK(here.held(memory::owner::weights) == before);
}

TEST_CASE("a checkpoint of another model, and none at all, are refused") {
  loaded_device here;
  temporary_folder folder;
  train::job_settings settings;
  settings.method = train::training_method::full;
  const auto path = checkpoint_of(folder, settings, std::vector<float>(1000));
  CHECK_FALSE(here.device->load_variant(path, 1));
  CHECK_FALSE(here.device->load_variant((folder.path() / "step-00000009").string(), 1));
}
