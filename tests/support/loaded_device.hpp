// A real device with a tiny model in it, and a trainer's versions for it.
#pragma once

#include "kernels/cpu/cpu_backend.hpp"
#include "runtime/serve/device.hpp"
#include "runtime/train/checkpoint.hpp"
#include "tests/support/golden.hpp"
#include "tests/support/random_adapter.hpp"
#include "tests/support/temporary_folder.hpp"

#include <catch2/catch.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tandem::test {

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

inline std::vector<float> numbers_in(const memory::arena& arena, std::size_t bytes) {
  const auto* first = reinterpret_cast<const float*>(arena.bytes().data());
  return {first, first + bytes / sizeof(float)};
}

inline std::string checkpoint_of(const temporary_folder& folder,
                                 const train::job_settings& settings, std::vector<float> numbers) {
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

inline serve::load_order order_for(const std::string& family) {
  serve::load_order order;
  order.path = golden("tiny/" + family).string();
  order.max_sequences = 4;
  order.max_batch_tokens = 32;
  order.kv_bytes = 1 << 20;
  return order;
}

// So many devices on the first core that hold a model together.
inline device_spec group_of(int ranks) {
  std::vector<device_spec> each;
  for (int rank = 0; rank < ranks; ++rank)
    each.push_back({.name = "cpu:" + std::to_string(rank),
                    .cores = {0},
                    .memory_bytes = std::uint64_t{1} << 30});
  return *std::move(grouped(std::move(each), ranks))->begin();
}

struct loaded_device {
  explicit loaded_device(std::uint64_t bytes = std::uint64_t{1} << 30)
      : loaded_device({.name = "cpu:0", .cores = {0}, .memory_bytes = bytes}) {}
  explicit loaded_device(const device_spec& spec, const std::string& family = "llama_tied")
      : device(serve::make_device(spec)) {
    device->attach_calling_thread();
    auto loaded = device->load(order_for(family));
    if (!loaded) FAIL(loaded.error().detail);
    model = *std::move(loaded);
  }
  std::uint64_t held(memory::owner who) const {
    return device->facts().memory_by_owner[static_cast<std::size_t>(who)];
  }
  // From the prompt, on this version.
  std::vector<serve::token_id> text(serve::variant_id variant, serve::slot_index slot,
                                    float temperature = 0.0F) {
    std::vector<serve::token_id> ids;
    serve::slot_start start;
    start.slot = slot;
    start.variant = variant;
    start.sampling.temperature = temperature;
    start.prompt = {5, 9, 2, 7, 7, 1};
    serve::step_plan plan;
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
  serve::loaded_model model;
};

// A trainer's device: an adapter and whole weights in a memory of their own.
struct trainer_side {
  explicit trainer_side(const std::string& family = "llama_tied")
      : backend(kernels::cpu::make_backend({})) {
    backend->attach_calling_thread();
    auto read = (*model::model_source::open(golden("tiny/" + family)))
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

}  // namespace tandem::test
