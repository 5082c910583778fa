// Work on every rank of a group, each on its own thread.
#include "runtime/serve/rank_threads.hpp"

#include "kernels/cpu/cpu_backend.hpp"
#include "kernels/local_collective.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace tandem;
using namespace tandem::serve;

TEST_CASE("each rank works on one thread, the first one's being the caller's") {
  rank_threads threads(3);
  std::array<std::thread::id, 3> first;
  std::array<std::thread::id, 3> again;
  threads.run([&](int rank) { first[static_cast<std::size_t>(rank)] = std::this_thread::get_id(); },
              [] {});
  threads.run([&](int rank) { again[static_cast<std::size_t>(rank)] = std::this_thread::get_id(); },
              [] {});
  CHECK(first == again);
  CHECK(first[0] == std::this_thread::get_id());
  CHECK(first[1] != first[0]);
  CHECK(first[2] != first[1]);
}

TEST_CASE("a rank that is lost ends the group's work with its own words, whoever waited for it") {
  for (const int lost : {0, 1, 2}) {
    std::vector<std::unique_ptr<kernels::backend>> devices;
    std::vector<kernels::backend*> each;
    for (int rank = 0; rank < 3; ++rank)
      each.push_back(devices.emplace_back(kernels::cpu::make_backend({})).get());
    kernels::local_group group(each);
    rank_threads threads(3);
    const auto work = [&](int rank) {
      if (rank == lost) throw std::runtime_error("the GPU fell off the bus");
      float x = 1.0F;
      group.of(rank).sum({&x, 1, 1});
    };
    INFO("rank " << lost);
    std::string said;
    try {
      threads.run(work, [&] { group.give_up(); });
    } catch (const std::runtime_error& why) {
      said = why.what();
    }
    CHECK(said == "the GPU fell off the bus");
    // What asks for nobody still runs on all, so that a group can be taken down.
    std::atomic<int> ran{0};
    threads.run([&](int) { ++ran; }, [] {});
    CHECK(ran == 3);
  }
}
