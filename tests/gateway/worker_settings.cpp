// What a node tells a worker that it starts comes back as it was.
#include "gateway/nodes/worker.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::gateway;

namespace {

worker_settings some() {
  worker_settings what;
  what.device = {.name = "cpu:0-1", .cores = {0, 1}, .memory_bytes = 1'000};
  what.head = "127.0.0.1:1";
  what.node = "head";
  what.link.listen = "127.0.0.1:0";
  what.link.cluster = "c";
  what.link.build = "b";
  what.link.secret = "a secret of some length";
  what.link.silent_after = std::chrono::milliseconds(3000);
  return what;
}

}  // namespace

TEST_CASE("a worker's settings come back, of one device and of a group") {
  auto what = some();
  const auto plain = worker_settings_from(to_line(what));
  REQUIRE(plain);
  CHECK(plain->device == what.device);
  CHECK(plain->head == what.head);
  CHECK(plain->link.secret == what.link.secret);
  what.device.ranks = {{.name = "cpu:0", .cores = {0}, .memory_bytes = 500},
                       {.name = "cpu:1", .cores = {1}, .memory_bytes = 500}};
  const auto group = worker_settings_from(to_line(what));
  REQUIRE(group);
  CHECK(group->device == what.device);
  what.device = {.name = "cuda:1+cuda:0", .cores = {}, .gpu = 1, .memory_bytes = 9};
  what.device.ranks = {{.name = "cuda:1", .cores = {}, .gpu = 1, .memory_bytes = 5},
                       {.name = "cuda:0", .cores = {}, .gpu = 0, .memory_bytes = 4}};
  const auto gpus = worker_settings_from(to_line(what));
  REQUIRE(gpus);
  CHECK(gpus->device == what.device);
}

TEST_CASE("settings that lack a device, or a part of one, are refused by name") {
  auto what = some();
  what.device.cores.clear();
  const auto bare = worker_settings_from(to_line(what));
  REQUIRE_FALSE(bare);
  CHECK(bare.error().param == "device");
  what = some();
  what.device.ranks = {{.name = "cpu:0", .cores = {}, .memory_bytes = 500}};
  const auto rankless = worker_settings_from(to_line(what));
  REQUIRE_FALSE(rankless);
  CHECK(rankless.error().param == "ranks");
}
