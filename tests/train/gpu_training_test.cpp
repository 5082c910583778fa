// What a GPU's training leaves is what a CPU device goes on with, and the other way round.
#include "tests/support/golden.hpp"
#include "tests/support/gpu.hpp"
#include "tests/support/random_model.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/training.hpp"

#include "runtime/train/checkpoint.hpp"

#include <cstring>

using namespace tandem;
using namespace tandem::test;
using train::training_method;

namespace {

train::job_settings settings_of(training_method method, const std::string& serve_format = "f32") {
  train::job_settings settings;
  settings.method = method;
  settings.rank = 4;
  settings.alpha = 8;
  settings.targets = {"q_proj", "o_proj", "up_proj", "down_proj"};
  settings.slots = 2;
  settings.sequence_length = 64;
  settings.learning_rate = 0.01;
  settings.serve_format = serve_format;
  settings.precision = train::product_precision::f32;
  return settings;
}

std::vector<train::round_rows> some_rounds() {
  std::mt19937 random(21);
  return random_rounds(random, 1, 2, 320);
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("on a GPU a job goes on from a CPU device's checkpoint, and back", "[gpu]") {
  if (no_gpu()) return;
  for (const auto method : {training_method::full, training_method::lora}) {
    for (const auto& [first, second] : {std::pair{-1, 0}, std::pair{0, -1}, std::pair{0, 0}}) {
      INFO("GPU " << first << ", then " << second);
      const temporary_folder folder;
      const auto model = golden("tiny/llama_tied");
      training_job before(model, {.settings = settings_of(method), .gpu = first});
      for (int s = 0; s < 3; ++s) before.step(some_rounds());
      train::checkpoint_facts facts;
      facts.job = "job";
      facts.model_path = model.string();
      facts.step = 3;
      facts.step_count = 10;
      facts.settings = settings_of(method);
      const auto written =
          train::write_checkpoint(folder.path(), facts, {before.trainer().facts().shared}, 2);
      if (!written) FAIL(written.error().detail);
      training_job after(
          model, {.settings = settings_of(method), .checkpoint = written->string(), .gpu = second});
      CHECK(after.trainer().facts().step == 3);
      CHECK(same(before.parameters(), after.parameters()));
      CHECK(same(before.on_host(before.memory().first_moments.floats),
                 after.on_host(after.memory().first_moments.floats)));
      CHECK(same(before.on_host(before.memory().second_moments.floats),
                 after.on_host(after.memory().second_moments.floats)));
      const auto one = before.step(some_rounds());
      const auto other = after.step(some_rounds());
      CHECK(one.loss == Approx(other.loss).epsilon(1e-4));
      CHECK(one.norm == Approx(other.norm).epsilon(1e-3));
      if (first == second) CHECK(same(before.parameters(), after.parameters()));
    }
  }
}

TEST_CASE("on a GPU what is published is what a CPU device publishes of the same weights",
          "[gpu]") {
  if (no_gpu()) return;
  for (const std::string format : {"f32", "bf16", "fp8", "q8_0", "q4_1"}) {
    INFO(format);
    for (const std::string family : {"llama_tied", "qwen2_bias", "qwen3_moe"}) {
      INFO(family);
      const auto settings = settings_of(training_method::full, format);
      training_job cpu(golden("tiny/" + family), {.settings = settings});
      training_job gpu(golden("tiny/" + family), {.settings = settings, .gpu = 0});
      const auto wanted = cpu.publish(1);
      const auto found = gpu.publish(1);
      REQUIRE(wanted.weights);
      REQUIRE(found.weights);
      CHECK(found.weights->book == gpu.book());
      const auto check = [&](const kernels::packed_matrix& one,
                             const kernels::packed_matrix& other) {
        REQUIRE(one.rows == other.rows);
        std::vector<float> a(static_cast<std::size_t>(one.columns));
        std::vector<float> b(a.size());
        for (std::int64_t r = 0; r < one.rows; ++r) {
          cpu.device().unpack_row(one, r, a.data());
          gpu.device().unpack_row(other, r, b.data());
          REQUIRE(same(a, b));
        }
      };
      check(wanted.weights->embedding_VD, found.weights->embedding_VD);
      for (std::size_t l = 0; l < wanted.weights->layers.size(); ++l) {
        const auto& one = wanted.weights->layers[l];
        const auto& other = found.weights->layers[l];
        check(one.qkv_XD, other.qkv_XD);
        check(one.output_DX, other.output_DX);
        if (one.gate_up_FD.data != nullptr) {
          check(cpu.device().gated_as_linear(one.gate_up_FD),
                gpu.device().gated_as_linear(other.gate_up_FD));
          check(one.down_DF, other.down_DF);
        }
        for (std::size_t e = 0; e < one.experts.size(); ++e)
          check(cpu.device().gated_as_linear(one.experts[e].gate_up_FD),
                gpu.device().gated_as_linear(other.experts[e].gate_up_FD));
      }
    }
  }
}

TEST_CASE("on a GPU LoRA learns over weights of every format", "[gpu]") {
  if (no_gpu()) return;
  for (const auto format :
       {model::load_format::f32, model::load_format::bf16, model::load_format::fp8,
        model::load_format::q8_0, model::load_format::q4_1}) {
    training_job cpu(golden("tiny/llama_tied"),
                     {.settings = settings_of(training_method::lora), .base = format});
    training_job gpu(golden("tiny/llama_tied"),
                     {.settings = settings_of(training_method::lora), .base = format, .gpu = 0});
    double first = 0.0;
    double last = 0.0;
    for (int s = 0; s < 8; ++s) {
      const auto wanted = cpu.step(some_rounds());
      const auto found = gpu.step(some_rounds());
      CHECK(found.loss == Approx(wanted.loss).epsilon(0.02));
      if (s == 0) first = found.loss;
      last = found.loss;
    }
    CHECK(last < first - 0.05);
    const auto published = gpu.publish(2);
    REQUIRE(published.adapter);
    CHECK(published.adapter->book == gpu.book());
  }
}
