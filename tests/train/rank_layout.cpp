// How the arenas of one device are divided among ranks that hold its model together.
#include "runtime/train/rank_layout.hpp"

#include "kernels/cpu/cpu_backend.hpp"
#include "runtime/model/weights.hpp"
#include "tests/support/tiny_models.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::test;

namespace {

model::model_config config_of(const std::string& family) {
  const auto source = model::model_source::open(tiny(family));
  if (!source) FAIL(source.error().detail);
  return (*source)->config();
}

std::size_t floats_of(const std::vector<train::parameter>& layout) {
  return layout.back().first_float + layout.back().floats;
}

}  // namespace

TEST_CASE("ranks' runs are all of a rank's arena and all of the whole but padding") {
  const auto device = kernels::cpu::make_backend({.cores = {}});
  for (const std::string family : families) {
    if (family == "qwen3_moe") continue;
    auto config = config_of(family);
    for (const bool odd : {false, true}) {
      if (odd) {  // nothing is a whole number of units
        config.vocabulary_size = 301;
        config.hidden_size = 77;
      }
      for (const int ranks : {2, 4}) {
        INFO(family << " on " << ranks << (odd ? ", odd" : ""));
        const auto layout = train::rank_layout::make(*device, config, ranks);
        if (!layout) FAIL(layout.error().detail);
        std::vector<std::size_t> covered(static_cast<std::size_t>(ranks), 0);
        for (const auto& run : layout->held)
          covered[static_cast<std::size_t>(run.rank)] += run.floats;
        for (int rank = 0; rank < ranks; ++rank) {
          const auto at = static_cast<std::size_t>(rank);
          const auto all = floats_of(layout->of_rank[at]);
          // A vector's line, and a panel of each matrix at most.
          CHECK(covered[at] <= all);
          CHECK(all - covered[at] <= layout->whole.size() * 16 * 100);
        }
        std::size_t next = 0;
        std::size_t gaps = 0;
        for (const auto& run : layout->runs_once(0, layout->floats())) {
          REQUIRE(run.whole >= next);
          gaps += run.whole - next;
          next = run.whole + run.floats;
        }
        CHECK(next <= layout->floats());
        CHECK(gaps <= layout->whole.size() * 16 * 100);
        // Any part of it is what the whole has there.
        const auto some = layout->runs_once(1000, 500);
        REQUIRE_FALSE(some.empty());
        CHECK(some.front().whole >= 1000);
        CHECK(some.back().whole + some.back().floats <= 1500);
      }
    }
  }
}

TEST_CASE("heads that are no whole panels are not divided") {
  const auto device = kernels::cpu::make_backend({.cores = {}});
  auto config = config_of("llama_tied");
  config.head_size = 24;
  const auto refused = train::rank_layout::make(*device, config, 2);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::unsupported);
  CHECK_THAT(refused.error().detail, Catch::Contains("heads of 24 numbers"));
}
