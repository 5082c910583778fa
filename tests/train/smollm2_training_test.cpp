// Eight steps of full fine-tuning of the quickstart model against PyTorch's, from the same
// dequantized weights (tests/golden/smollm2/training.json). Without the file it says so and passes.
#include "tests/support/golden.hpp"
#include "tests/support/training.hpp"

#include <cstdlib>
#include <optional>

using namespace tandem;
using namespace tandem::test;

namespace {

std::optional<std::filesystem::path> quickstart_model() {
  const char* const home = std::getenv("TANDEM_HOME");
  const char* const user = std::getenv("HOME");
  const std::filesystem::path root =
      home != nullptr ? std::filesystem::path(home)
                      : std::filesystem::path(user != nullptr ? user : ".") / ".tandem";
  const auto file = root / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf";
  if (std::filesystem::exists(file)) return file;
  WARN("skipped: " << file << " is not there; run.sh gets it");
  return std::nullopt;
}

// Padding at the end is never counted and nothing behind it sees it: it is left out.
train::slot_rows unpadded(std::vector<std::int32_t> ids, const std::vector<std::int32_t>& mask) {
  while (!ids.empty() && mask[ids.size() - 1] == 0) ids.pop_back();
  return example_rows(ids, {mask.begin(), mask.end()});
}

}  // namespace

TEST_CASE("eight full training steps of SmolLM2 have PyTorch's losses to 0.2 %") {
  const auto path = quickstart_model();
  if (!path) return;
  const golden_json truth("smollm2/training.json");
  const simdjson::dom::element adamw = truth.root()["adamw"];
  train::job_settings settings;
  settings.method = train::training_method::full;
  settings.slots = 2;
  settings.sequence_length = 192;
  settings.learning_rate = adamw["lr"].get_double().value();
  settings.beta1 = adamw["betas"].at(0).get_double().value();
  settings.beta2 = adamw["betas"].at(1).get_double().value();
  settings.eps = adamw["eps"].get_double().value();
  settings.weight_decay = adamw["weight_decay"].get_double().value();
  settings.clip_norm = adamw["clip_norm"].get_double().value();
  settings.serve_format = "q4_1";
  training_job job(*path, {.settings = settings});

  const auto losses = numbers_of(truth.root()["losses"]);
  const auto norms = numbers_of(truth.root()["norms_before_clip"]);
  std::size_t at = 0;
  for (const auto batch : truth.root()["batches"].get_array()) {
    train::round_rows round;
    for (std::size_t i = 0; i < 2; ++i)
      round.slots.push_back(unpadded(ids_of(batch["ids"].at(i)), ids_of(batch["loss_mask"].at(i))));
    const auto step = job.step({round});
    INFO("step " << at + 1);
    CHECK(step.loss == Approx(losses[at]).epsilon(0.002));
    CHECK(step.norm == Approx(norms[at]).epsilon(0.01));
    WARN("step " << at + 1 << ": loss " << step.loss << " (PyTorch " << losses[at] << "), norm "
                 << step.norm << " (" << norms[at] << ")");
    ++at;
  }
}
