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

TEST_CASE("this machine has cores and memory") {
  CHECK_FALSE(this_machine().cores.empty());
  CHECK(this_machine().memory_bytes > 0);
}
