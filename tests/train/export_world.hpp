// Checkpoints of tiny models as a trainer would leave them, without training: the base's own
// numbers, changed by a rule that a test can repeat.
#pragma once

#include "kernels/cpu/cpu_backend.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/train/checkpoint.hpp"
#include "runtime/train/trained_weights.hpp"
#include "tests/support/golden.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace tandem::test {

class plain_memory : public train::trainer_memory {
 public:
  plain_memory(std::vector<float> parameters, std::vector<train::parameter> layout)
      : parameters_(std::move(parameters)),
        zeros_(parameters_.size()),
        layout_(std::move(layout)) {}
  train::state_view view() const override {
    return {parameters_, zeros_, zeros_, 0, zeros_.size()};
  }
  const std::vector<train::parameter>& layout() const override { return layout_; }

 private:
  std::vector<float> parameters_;
  std::vector<float> zeros_;
  std::vector<train::parameter> layout_;
};

// A small number for each place, about `size` large.
inline float wave(std::size_t i, float size) {
  return size * std::sin(0.7F * static_cast<float>(i % 1009));
}

struct export_world {
  explicit export_world(const std::filesystem::path& base_path)
      : base(base_path), device(kernels::cpu::make_backend({})), book(std::uint64_t{4} << 30) {
    device->attach_calling_thread();
    auto opened = model::model_source::open(base);
    if (!opened) FAIL(opened.error().detail);
    source = *opened;
  }

  train::checkpoint_facts facts(train::training_method method) const {
    train::checkpoint_facts facts;
    facts.job = "ftjob-0123456789abcdef01234567";
    facts.model_path = base.string();
    facts.base_name = "tiny";
    facts.step = 12;
    facts.step_count = 12;
    facts.settings.method = method;
    facts.settings.rank = 4;
    facts.settings.alpha = 8.0;
    facts.settings.targets = {"q_proj",  "k_proj",       "v_proj",    "o_proj",  "gate_proj",
                              "up_proj", "gate_up_proj", "down_proj", "qkv_proj"};
    return facts;
  }

  // Every parameter of the base, each moved a little where it is not padding.
  std::filesystem::path write_full(const std::filesystem::path& checkpoints) {
    auto loaded = source->load(*device, book, model::load_format::f32);
    REQUIRE(loaded);
    const auto bytes = (*loaded)->memory.bytes().first((*loaded)->memory.used());
    const auto* const floats = reinterpret_cast<const float*>(bytes.data());
    std::vector<float> parameters(floats, floats + bytes.size() / sizeof(float));
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (parameters[i] != 0.0F) parameters[i] += wave(i, 0.01F);
    auto layout = train::parameter_layout::make(*device, source->config());
    REQUIRE(layout);
    return write(checkpoints, facts(train::training_method::full), std::move(parameters),
                 layout->parameters);
  }

  model::module_numbers numbers(const model::adapter_module& module) const {
    model::module_numbers made;
    for (std::size_t i = 0; i < static_cast<std::size_t>(module.rank * module.columns); ++i)
      made.a.push_back(wave(i + static_cast<std::size_t>(module.layer), 0.1F));
    for (std::size_t i = 0; i < static_cast<std::size_t>(module.rows * module.rank); ++i)
      made.b.push_back(wave(3 * i + static_cast<std::size_t>(module.first_row), 0.1F));
    return made;
  }

  std::filesystem::path write_lora(const std::filesystem::path& checkpoints) {
    const auto lora = facts(train::training_method::lora);
    auto layout = model::adapter_layout::make(*device, source->config(), lora.settings.rank,
                                              lora.settings.alpha, lora.settings.targets);
    REQUIRE(layout);
    auto memory =
        memory::arena::reserve(book, memory::owner::adapters, layout->bytes, "a test's adapter");
    REQUIRE(memory);
    const auto bytes = memory->take(layout->bytes);
    const auto layers = model::place_adapter(*device, source->config(), *layout, bytes.data());
    model::fill_adapter(*device, layers, *layout,
                        [&](const model::adapter_module& module) { return numbers(module); });
    const auto* const floats = reinterpret_cast<const float*>(bytes.data());
    std::vector<float> parameters(floats, floats + bytes.size() / sizeof(float));
    const std::size_t count = parameters.size();
    return write(checkpoints, lora, std::move(parameters), {{"adapter", 0, count, true}});
  }

  std::filesystem::path write(const std::filesystem::path& checkpoints,
                              const train::checkpoint_facts& what, std::vector<float> parameters,
                              const std::vector<train::parameter>& layout) {
    const auto path = train::write_checkpoint(
        checkpoints, what, {std::make_shared<plain_memory>(std::move(parameters), layout)}, 3);
    if (!path) FAIL(path.error().detail);
    return *path;
  }

  std::filesystem::path base;
  std::unique_ptr<kernels::backend> device;
  memory::ledger book;
  std::shared_ptr<const model::model_source> source;
};

}  // namespace tandem::test
