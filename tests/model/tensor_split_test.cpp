// Which part of a model each of several ranks holds.
#include "runtime/model/tensor_split.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::model;

namespace {

model_config shaped(int query_heads, int key_heads, std::int64_t D = 64, std::int64_t F = 96,
                    std::int64_t V = 256) {
  model_config config;
  config.model_size = D;
  config.hidden_size = F;
  config.vocabulary_size = V;
  config.query_heads = query_heads;
  config.key_heads = key_heads;
  config.head_size = 16;
  return config;
}

using member = output_range rank_part::*;

std::vector<output_range> ranges(const model_config& config, int ranks, member which) {
  const auto split = tensor_split::make(config, {0, ranks});
  if (!split) FAIL(split.error().detail);
  std::vector<output_range> all;
  for (const auto& part : split->parts) all.push_back(part.*which);
  return all;
}

std::string refusal(const model_config& config, int ranks) {
  const auto split = tensor_split::make(config, {0, ranks});
  REQUIRE_FALSE(split);
  CHECK(split.error().param == "model.tensor_parallel");
  return split.error().detail;
}

using list = std::vector<output_range>;

}  // namespace

TEST_CASE("one rank holds all of any model") {
  auto config = shaped(9, 3, 576, 1536, 49152);
  config.experts = 8;
  const auto split = tensor_split::make(config, {});
  REQUIRE(split);
  CHECK(split->own() == rank_part{{0, 9}, {0, 3}, {0, 576}, {0, 1536}, {0, 49152}});
}

TEST_CASE("whole key heads go to each rank with their query heads, the first ranks having more") {
  CHECK(ranges(shaped(8, 4), 2, &rank_part::key_heads) == list{{0, 2}, {2, 2}});
  CHECK(ranges(shaped(8, 4), 2, &rank_part::query_heads) == list{{0, 4}, {4, 4}});
  CHECK(ranges(shaped(9, 3), 2, &rank_part::key_heads) == list{{0, 2}, {2, 1}});
  CHECK(ranges(shaped(9, 3), 2, &rank_part::query_heads) == list{{0, 6}, {6, 3}});
}

TEST_CASE("ranks share a key head and divide its query heads where there are fewer of them") {
  CHECK(ranges(shaped(8, 2), 4, &rank_part::key_heads) == list{{0, 1}, {0, 1}, {1, 1}, {1, 1}});
  CHECK(ranges(shaped(8, 2), 4, &rank_part::query_heads) == list{{0, 2}, {2, 2}, {4, 2}, {6, 2}});
  CHECK(ranges(shaped(4, 1), 2, &rank_part::query_heads) == list{{0, 2}, {2, 2}});
}

TEST_CASE("heads that cannot be dealt out are refused with the numbers that can") {
  CHECK(refusal(shaped(9, 3), 4) ==
        "9 query and 3 key heads cannot be split over 4 devices; over 1, 2, 3, 9 they can");
  CHECK(refusal(shaped(6, 2), 4) ==
        "6 query and 2 key heads cannot be split over 4 devices; over 1, 2, 6 they can");
  CHECK(refusal(shaped(4, 4), 5) ==
        "4 query and 4 key heads cannot be split over 5 devices; over 1, 2, 3, 4 they can");
}

TEST_CASE("outputs are dealt in units of 32, the last one as short as it is") {
  CHECK(ranges(shaped(4, 4, 64, 88), 2, &rank_part::model) == list{{0, 32}, {32, 32}});
  CHECK(ranges(shaped(4, 4, 64, 88), 2, &rank_part::hidden) == list{{0, 64}, {64, 24}});
  CHECK(ranges(shaped(4, 4, 48), 4, &rank_part::model) ==
        list{{0, 32}, {32, 0}, {32, 16}, {48, 0}});
  CHECK(ranges(shaped(4, 4, 64, 96, 257), 2, &rank_part::vocabulary) == list{{0, 160}, {160, 97}});
}

TEST_CASE("a mixture of experts is not split") {
  auto config = shaped(4, 4);
  config.experts = 8;
  CHECK(refusal(config, 2) ==
        "a mixture of 8 experts is not split over 2 devices: give model.tensor_parallel 1");
}
