// A real CPU device takes versions, gives them back, and reads them out of checkpoints.
#include "runtime/train/serving_copy.hpp"
#include "tests/support/loaded_device.hpp"

using namespace tandem;
using namespace tandem::serve;
using namespace tandem::test;

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
  const std::string format = GENERATE("f32", "bf16", "fp8", "q8_0");
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
