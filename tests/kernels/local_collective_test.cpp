// Ranks of one process meet: what they gather and what they add.
#include "kernels/local_collective.hpp"

#include "kernels/cpu/cpu_backend.hpp"
#include "tests/kernels/test_device.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <functional>
#include <thread>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

struct ranks {
  explicit ranks(int count) {
    std::vector<backend*> each;
    for (int rank = 0; rank < count; ++rank) {
      devices.push_back(cpu::make_backend({}));
      each.push_back(devices.back().get());
    }
    group = std::make_unique<local_group>(each);
  }
  // Each on a thread of its own, and that one alone.
  void each(const std::function<void(collective&)>& work) const {
    std::vector<std::thread> threads;
    for (std::size_t rank = 0; rank < devices.size(); ++rank)
      threads.emplace_back([&, rank] {
        devices[rank]->attach_calling_thread();
        work(group->of(static_cast<int>(rank)));
      });
    for (auto& thread : threads) thread.join();
  }
  std::vector<std::unique_ptr<backend>> devices;
  std::unique_ptr<local_group> group;
};

}  // namespace

TEST_CASE("every rank has all columns in order, wherever its own part lies, again and again") {
  const std::vector<std::int64_t> columns{5, 0, 16, 3};
  constexpr std::int64_t T = 7;
  constexpr std::int64_t X = 24;
  const ranks four(4);
  std::atomic<int> wrong{0};
  four.each([&](collective& meet) {
    CHECK(meet.size() == 4);
    const auto mine = columns[static_cast<std::size_t>(meet.rank())];
    std::int64_t first = 0;
    for (int rank = 0; rank < meet.rank(); ++rank) first += columns[static_cast<std::size_t>(rank)];
    floats apart(static_cast<std::size_t>(T * mine));
    floats whole(static_cast<std::size_t>(T * (X + 2)));
    const rows_out all{whole.data() + 1, T, X, X + 2};
    for (int round = 0; round < 200; ++round) {
      const auto value = [&](std::int64_t t, std::int64_t x) {
        return static_cast<float>(round * 1000 + t * 31 + x);
      };
      const bool in_place = round % 2 == 0;
      const rows_out part = in_place ? rows_out{all.data + first, T, mine, all.stride}
                                     : rows_out{apart.data(), T, mine};
      for (std::int64_t t = 0; t < T; ++t)
        for (std::int64_t x = 0; x < mine; ++x) part.row(t)[x] = value(t, first + x);
      meet.gather_columns(part, columns, all);
      for (std::int64_t t = 0; t < T; ++t)
        for (std::int64_t x = 0; x < X; ++x) wrong += all.row(t)[x] != value(t, x) ? 1 : 0;
      wrong += whole.front() != 0.0F || whole.back() != 0.0F ? 1 : 0;
    }
  });
  CHECK(wrong == 0);
}

TEST_CASE("a sum is the balanced tree over ranks, on all of them to the bit") {
  constexpr std::int64_t T = 9;
  constexpr std::int64_t X = 5;
  for (const int count : {1, 2, 3, 4, 5, 8}) {
    const ranks group(count);
    std::vector<floats> given;
    randoms random(3);
    for (int rank = 0; rank < count; ++rank)
      given.push_back(random.values(T * X, static_cast<float>(1 << (3 * rank % 13))));
    const std::function<float(int, int, std::size_t)> tree = [&](int begin, int end,
                                                                 std::size_t i) {
      if (end - begin == 1) return given[static_cast<std::size_t>(begin)][i];
      return tree(begin, (begin + end) / 2, i) + tree((begin + end) / 2, end, i);
    };
    std::atomic<int> wrong{0};
    group.each([&](collective& meet) {
      auto x = given[static_cast<std::size_t>(meet.rank())];
      meet.sum({x.data(), T, X});
      for (std::size_t i = 0; i < x.size(); ++i) wrong += x[i] != tree(0, count, i) ? 1 : 0;
    });
    INFO(count << " ranks");
    CHECK(wrong == 0);
  }
}

TEST_CASE("a rank that is lost ends the others' wait") {
  const ranks three(3);
  std::atomic<int> told{0};
  three.each([&](collective& meet) {
    if (meet.rank() == 1) return three.group->give_up();
    float x = 1.0F;
    try {
      meet.sum({&x, 1, 1});
    } catch (const rank_lost&) {
      ++told;
    }
  });
  CHECK(told == 2);
}
