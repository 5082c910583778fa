#include "kernels/cpu/thread_team.hpp"
#include "tests/kernels/test_device.hpp"

#include <catch2/catch.hpp>

#include <atomic>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

TEST_CASE("rms_norm is as exact as the plain kernel in odd sizes, in place and added") {
  for (const std::int64_t D : {1, 31, 33, 64, 1000}) {
    const std::int64_t T = 6;
    randoms random(8);
    const floats x = random.values(T * D, 4.0F);
    const floats w = random.values(D);
    std::vector<double> truth;
    for (std::int64_t t = 0; t < T; ++t) {
      double squares = 0.0;
      for (std::int64_t i = 0; i < D; ++i) {
        squares += std::pow(static_cast<double>(x[static_cast<std::size_t>(t * D + i)]), 2);
      }
      const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(D) + 1e-5);
      for (std::int64_t i = 0; i < D; ++i) {
        truth.push_back(static_cast<double>(x[static_cast<std::size_t>(t * D + i)]) * inverse *
                        static_cast<double>(w[static_cast<std::size_t>(i)]));
      }
    }
    double plain_error = 0.0;
    for (const auto set : cpu::supported_instruction_sets()) {
      INFO(name_of(set) << " D=" << D);
      test_device one(set, 1);
      test_device two(set, 2);
      floats y = x;
      one->rms_norm({y.data(), T, D}, w.data(), 1e-5F, {y.data(), T, D});
      const double error = largest_error(y, truth);
      if (set == cpu::instruction_set::reference) plain_error = error;
      CHECK(plain_error <= 2e-6);
      CHECK(error <= 2.0 * plain_error + 3e-7);

      floats added(x.size(), 0.5F);
      two->add_rms_norm({x.data(), T, D}, w.data(), 1e-5F, {added.data(), T, D});
      for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(added[i] == 0.5F + y[i]);
    }
  }
}

TEST_CASE("rope angles are exact to the last place at far positions") {
  const std::vector<std::int32_t> positions{0, 1, 131071};
  const floats frequency{1.0F, 0.25F, 1e-4F};
  test_device device(cpu::best_instruction_set());
  floats got(3 * 6);
  device->rope_angles(positions, frequency, 1.5F, got.data());
  for (std::size_t t = 0; t < 3; ++t) {
    for (std::size_t i = 0; i < 3; ++i) {
      const double angle = static_cast<double>(positions[t]) * static_cast<double>(frequency[i]);
      CHECK(got[t * 6 + i] == static_cast<float>(1.5 * std::cos(angle)));
      CHECK(got[t * 6 + 3 + i] == static_cast<float>(1.5 * std::sin(angle)));
    }
  }
}

TEST_CASE("routing takes the largest, ties to the smaller id, and shares sum to one") {
  const floats logits{1.0F,  3.0F, 3.0F, 2.0F, -1.0F,  //
                      0.0F,  0.0F, 0.0F, 0.0F, 0.0F,   //
                      -5.0F, 4.0F, 1.0F, 4.5F, 4.0F};
  for (const auto set : cpu::supported_instruction_sets()) {
    test_device device(set);
    std::vector<std::int32_t> ids(9);
    floats weights(9);
    device->moe_route({logits.data(), 3, 5}, true, {3, ids.data(), weights.data()});
    CHECK(ids == std::vector<std::int32_t>{1, 2, 3, 0, 1, 2, 3, 1, 4});
    for (std::size_t t = 0; t < 3; ++t) {
      CHECK(weights[3 * t] + weights[3 * t + 1] + weights[3 * t + 2] == Approx(1.0F));
    }
    CHECK(weights[0] == Approx(1.0 / (2.0 + std::exp(-1.0))));

    device->moe_route({logits.data(), 3, 5}, false, {3, ids.data(), weights.data()});
    CHECK(weights[3] == Approx(0.2F));
    CHECK(weights[0] == Approx(1.0 / (2.0 + std::exp(-1.0) + std::exp(-2.0) + std::exp(-4.0))));
  }
}

TEST_CASE("gathered rows are copies in the order asked for") {
  randoms random(12);
  const floats x = random.values(7 * 5);
  test_device device(cpu::best_instruction_set(), 2);
  const std::vector<std::int32_t> rows{6, 0, 0, 3, 1, 2};
  floats y(30);
  device->gather_rows({x.data(), 7, 5}, rows, {y.data(), 6, 5});
  for (std::size_t b = 0; b < 6; ++b) {
    for (std::size_t i = 0; i < 5; ++i) {
      CHECK(y[b * 5 + i] == x[static_cast<std::size_t>(rows[b]) * 5 + i]);
    }
  }
}

TEST_CASE("for_each calls every index once, on any number of threads") {
  for (const int threads : {1, 2, 3}) {
    test_device device(cpu::best_instruction_set(), threads);
    CHECK(device->thread_count() == threads);
    std::vector<std::atomic<int>> calls(1000);
    device->for_each(1000, [&](std::int64_t i) { ++calls[static_cast<std::size_t>(i)]; });
    for (const auto& count : calls) REQUIRE(count == 1);
    device->for_each(0, [&](std::int64_t) { FAIL("nothing to call"); });
  }
}

TEST_CASE("a team's barrier holds everyone until the last has come") {
  cpu::thread_team team({0, 1, 0});
  std::atomic<int> before{0};
  std::atomic<int> early{0};
  for (int round = 1; round <= 200; ++round) {
    team.run([&](int) {
      ++before;
      team.barrier();
      if (before.load() < 3 * round) ++early;
      team.barrier();
    });
  }
  CHECK(before == 600);
  CHECK(early == 0);
}

TEST_CASE("a core that does not exist leaves its thread unpinned, not dead") {
  cpu::cpu_options options;
  options.cores = {99999, -5};
  const auto device = cpu::make_backend(options);
  device->attach_calling_thread();
  std::atomic<int> calls{0};
  device->for_each(10, [&](std::int64_t) { ++calls; });
  CHECK(calls == 10);
}
