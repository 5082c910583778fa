#include "runtime/device_spec.hpp"

#include <catch2/catch.hpp>

using namespace tandem;

namespace {
const machine four_cores{{0, 1, 2, 3}, 8'000};
}

TEST_CASE("auto is one device with all cores and the allowed share of memory") {
  auto devices = devices_from({"auto"}, 0, 0.5, four_cores);
  REQUIRE(devices);
  REQUIRE(devices->size() == 1);
  CHECK(devices->front().name == "cpu:0-3");
  CHECK(devices->front().cores == std::vector<int>{0, 1, 2, 3});
  CHECK(devices->front().memory_bytes == 4'000);
}

TEST_CASE("named devices share memory by their cores") {
  auto devices = devices_from({"cpu:0-2", "cpu:3"}, 0, 1.0, four_cores);
  REQUIRE(devices);
  CHECK((*devices)[0].memory_bytes == 6'000);
  CHECK((*devices)[1].memory_bytes == 2'000);
  CHECK((*devices)[1].cores == std::vector<int>{3});
}

TEST_CASE("threads_per_device takes the first cores of a range") {
  auto devices = devices_from({"auto"}, 2, 1.0, four_cores);
  REQUIRE(devices);
  CHECK(devices->front().cores == std::vector<int>{0, 1});
}

TEST_CASE("a device that the machine has not is refused with its reason") {
  for (const auto* name : {"cpu:4", "cpu:2-9", "gpu:0", "cpu:", "cpu:1-", "cpu:3-1", "cpu:x", "",
                           "cpu:0-99999999999", "cuda:0"}) {
    CAPTURE(name);
    auto devices = devices_from({name}, 0, 1.0, four_cores);
    REQUIRE_FALSE(devices);
    CHECK(devices.error().param == "devices.list");
    CHECK_FALSE(devices.error().detail.empty());
  }
  CHECK_FALSE(devices_from({"cpu:0-1", "cpu:1-2"}, 0, 1.0, four_cores));
}

namespace {
// Two GPUs that can be used and one that is too old between them.
machine with_gpus() {
  machine here = four_cores;
  here.gpus.driver = "13.0";
  here.gpus.gpus = {{0, "NVIDIA H200", 9, 0, 132, 100'000, ""},
                    {1, "NVIDIA GTX", 7, 5, 20, 8'000, "it is too old"},
                    {2, "NVIDIA H200", 9, 0, 132, 100'000, ""}};
  return here;
}
}  // namespace

TEST_CASE("auto takes the GPUs that can be used, and shares the cores among them for host work") {
  auto devices = devices_from({"auto"}, 0, 0.5, with_gpus());
  REQUIRE(devices);
  REQUIRE(devices->size() == 2);
  CHECK((*devices)[0].name == "cuda:0");
  CHECK((*devices)[0].gpu == 0);
  CHECK((*devices)[0].memory_bytes == 50'000);
  CHECK((*devices)[0].cores == std::vector<int>{0, 2});
  CHECK((*devices)[1].name == "cuda:2");
  CHECK((*devices)[1].cores == std::vector<int>{1, 3});
}

TEST_CASE("GPUs and cores may be devices side by side") {
  auto devices = devices_from({"cpu:0-1", "cuda:2"}, 0, 1.0, with_gpus());
  REQUIRE(devices);
  CHECK((*devices)[0].memory_bytes == 8'000);
  CHECK((*devices)[0].gpu == -1);
  CHECK((*devices)[1].gpu == 2);
  CHECK((*devices)[1].memory_bytes == 100'000);
  CHECK((*devices)[1].cores == std::vector<int>{2, 3});
}

TEST_CASE("a GPU that cannot be used is refused with what was found") {
  const auto refusal = [](std::vector<std::string> list, const machine& here) {
    auto devices = devices_from(list, 0, 1.0, here);
    REQUIRE_FALSE(devices);
    return devices.error().detail;
  };
  CHECK(refusal({"cuda:1"}, with_gpus()) == "device cuda:1: NVIDIA GTX: it is too old");
  CHECK(refusal({"cuda:3"}, with_gpus()) ==
        "device cuda:3: this machine has 3 GPUs, numbered from 0");
  CHECK(refusal({"cuda:0", "cuda:0"}, with_gpus()) == "device cuda:0 is named twice");
  machine none = four_cores;
  none.gpus.why_not = "there is no NVIDIA driver";
  CHECK(refusal({"cuda:0"}, none) == "device cuda:0: there is no NVIDIA driver");
}

TEST_CASE("this machine has cores and memory") {
  CHECK_FALSE(this_machine().cores.empty());
  CHECK(this_machine().memory_bytes > 0);
}

TEST_CASE("devices that hold a model together are one, named in their order") {
  const auto groups =
      grouped(*devices_from({"cpu:0", "cpu:1", "cpu:2", "cpu:3"}, 0, 1.0, four_cores), 2);
  REQUIRE(groups);
  REQUIRE(groups->size() == 2);
  const auto& second = (*groups)[1];
  CHECK(second.name == "cpu:2+cpu:3");
  CHECK(second.cores == std::vector<int>{2, 3});
  CHECK(second.memory_bytes == 4'000);
  CHECK(second.gpu == -1);
  REQUIRE(second.ranks.size() == 2);
  CHECK(second.ranks[1].name == "cpu:3");
  CHECK(second.ranks[1].memory_bytes == 2'000);
  const auto gpus = grouped(*devices_from({"cuda:2", "cuda:0"}, 0, 0.5, with_gpus()), 2);
  REQUIRE(gpus);
  CHECK(gpus->front().name == "cuda:2+cuda:0");
  CHECK(gpus->front().gpu == 2);
  const auto alone = devices_from({"cpu:0-3"}, 0, 1.0, four_cores);
  CHECK(*grouped(*alone, 1) == *alone);
}

TEST_CASE("devices that make no groups are refused with their number and what to do") {
  const auto three = devices_from({"cpu:0", "cpu:1", "cpu:2"}, 0, 1.0, four_cores);
  const auto refused = grouped(*three, 2);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().param == "model.tensor_parallel");
  CHECK_THAT(
      refused.error().detail,
      Catch::Contains("model.tensor_parallel is 2, the devices are 3 (cpu:0, cpu:1, cpu:2)"));
  const auto mixed = grouped(*devices_from({"cpu:0", "cuda:2"}, 0, 1.0, with_gpus()), 2);
  REQUIRE_FALSE(mixed);
  CHECK_THAT(mixed.error().detail, Catch::Contains("GPUs alone, or cores alone"));
}
