// The quickstart model against float64 truth over its own dequantized weights
// (tests/golden/smollm2). Without the file the tests say so and pass.
#include "tests/support/golden.hpp"
#include "tests/support/model_runner.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <optional>

using namespace tandem;
using namespace tandem::test;
using model::load_format;

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

double mean_loss(model_runner& runner, const std::vector<std::int32_t>& ids) {
  const auto logits = runner.read_long(ids);
  double sum = 0.0;
  for (std::size_t t = 0; t + 1 < ids.size(); ++t) sum -= log_probability(logits[t], ids[t + 1]);
  return sum / static_cast<double>(ids.size() - 1);
}

}  // namespace

TEST_CASE("SmolLM2 in float32 chooses as the truth does wherever the truth is sure") {
  const auto path = quickstart_model();
  if (!path) return;
  const golden_json truth("smollm2/greedy.json");
  model_runner runner(*path, {.format = load_format::f32});
  int compared = 0;
  for (const auto text : truth.root().get_array()) {
    auto ids = ids_of(text["prompt_ids"]);
    const auto first = ids.size() - 1;
    for (const auto step : text["steps"].get_array())
      ids.push_back(static_cast<std::int32_t>(step["id"].get_int64().value()));
    runner.forget();
    const auto logits = runner.read(ids);
    std::size_t row = first;
    for (const auto step : text["steps"].get_array()) {
      const double best = step["top"].at(0).at(1).get_double().value();
      const double second = step["top"].at(1).at(1).get_double().value();
      if (best - second > 0.02) {
        CHECK(best_of(logits[row]) == step["id"].get_int64().value());
        CHECK(log_probability(logits[row], ids[row + 1]) == Approx(best).margin(2e-3));
        ++compared;
      }
      ++row;
    }
  }
  CHECK(compared > 80);
}

TEST_CASE(
    "SmolLM2's mean token loss is the truth's: to 0.05 % in float32, to 1 % in its own Q4_1") {
  const auto path = quickstart_model();
  if (!path) return;
  const golden_json truth("smollm2/perplexity.json");
  const auto ids = ids_of(truth.root()["ids"]);
  const double wanted = truth.root()["mean_nll"].get_double().value();

  model_runner exact(*path, {.format = load_format::f32, .context = 1024, .sequences = 1});
  const double in_f32 = mean_loss(exact, ids);
  CHECK(std::fabs(in_f32 / wanted - 1.0) < 0.0005);

  model_runner native(*path, {.format = load_format::native,
                              .kv = kernels::kv_format::f16,
                              .context = 1024,
                              .sequences = 1});
  CHECK(native.model().precision == "q4_1");
  const double in_q4_1 = mean_loss(native, ids);
  CHECK(std::fabs(in_q4_1 / wanted - 1.0) < 0.01);
  fmt::print(
      "SmolLM2 mean token loss on {}: truth {:.5f}, f32 {:.5f} ({:+.4f} %), q4_1 {:.5f} "
      "({:+.4f} %)\n",
      native.device().name(), wanted, in_f32, 100.0 * (in_f32 / wanted - 1.0), in_q4_1,
      100.0 * (in_q4_1 / wanted - 1.0));
}
