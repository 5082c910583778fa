// Writes exports for readers that are not ours: tests/flows/export_test.py, and transformers, peft
// and llama.cpp by hand. Hidden: it leaves what it writes under $TANDEM_EXPORT_TO.
// $TANDEM_EXPORT_BASE is another base model.
#include "runtime/train/export.hpp"
#include "tests/support/model_runner.hpp"
#include "tests/train/export_world.hpp"

#include <catch2/catch.hpp>

#include <fmt/format.h>
#include <array>
#include <cstdlib>
#include <fstream>

namespace tandem::train {
namespace {

namespace fs = std::filesystem;

void write_exports(const fs::path& base, const fs::path& to) {
  test::export_world world(base);
  const auto lora = world.write_lora(to / "checkpoints-lora");
  const auto full = world.write_full(to / "checkpoints-full");
  struct wanted {
    const char* name;
    fs::path checkpoint;
    export_form form;
  };
  for (const auto& one :
       {wanted{"adapter", lora, export_form::adapter}, wanted{"merged", lora, export_form::merged},
        wanted{"full", full, export_form::merged},
        wanted{"merged-gguf", lora, export_form::gguf}}) {
    const auto done = export_checkpoint(*world.device, one.checkpoint, base, to / one.name,
                                        {one.form, kernels::source_format::f32, {}});
    if (!done) FAIL(one.name << ": " << done.error().detail);
    if (one.form == export_form::adapter) continue;
    // What our own loader makes of it, beside it.
    std::ofstream logits(to / (std::string(one.name) + ".logits"));
    for (const auto& row : test::model_runner(done->path).read({1, 17, 300, 42, 5, 118, 269, 33}))
      logits << fmt::format("{}\n", fmt::join(row, " "));
  }
}

TEST_CASE("writes exports for others", "[.exports]") {
  const char* const to = std::getenv("TANDEM_EXPORT_TO");
  REQUIRE(to != nullptr);
  if (const char* const base = std::getenv("TANDEM_EXPORT_BASE")) return write_exports(base, to);
  for (const std::string family :
       {"llama_tied", "llama31_rope_untied", "mistral_window", "qwen2_bias", "qwen3_qknorm",
        "gemma3_local_global", "phi3_fused", "qwen3_moe"})
    write_exports(test::golden("tiny/" + family), fs::path(to) / family);
}

}  // namespace
}  // namespace tandem::train
