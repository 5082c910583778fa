#include "runtime/store/sqlite_database.hpp"
#include "tests/support/store_world.hpp"

#include <catch2/catch.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>

using namespace tandem;
using lease::role;
using tandem::test::store_world;

namespace {

lease::lease shared_lease(lease::epoch at) {
  return {"cpu:0", role::shared, "serve tiny", at, "ftjob-1", 3, at};
}

}  // namespace

TEST_CASE("the book comes back as it was written, with pins and a higher epoch") {
  store_world world;
  {
    const auto book = world->leases();
    REQUIRE(book->load());
    CHECK(book->load()->leases.empty());
    REQUIRE(book->save({"cpu:1", role::train, "ftjob-1", 4, "", 0, 4}));
    REQUIRE(book->save(shared_lease(5)));
    REQUIRE(book->save(shared_lease(7)));
    REQUIRE(book->save({"cpu:2", role::serve, "serve tiny", 6, "", 6, 0}));
    REQUIRE(book->forget("cpu:2", 8));
    REQUIRE(book->pin("cpu:1", role::train));
    REQUIRE(book->pin("cpu:0", role::serve));
    REQUIRE(book->pin("cpu:1", role::shared));
    REQUIRE(book->pin("cpu:0", std::nullopt));
  }
  world.close();
  world.open();
  const auto saved = world->leases()->load();
  REQUIRE(saved);
  CHECK(saved->leases ==
        std::vector{shared_lease(7), lease::lease{"cpu:1", role::train, "ftjob-1", 4, "", 0, 4}});
  CHECK(saved->pins == std::vector{std::pair<std::string, role>{"cpu:1", role::shared}});
  CHECK(saved->newest >= 8);
}

TEST_CASE(
    "epochs never repeat: each life of the process begins above what the last may have given "
    "out, killed or not") {
  store_world world;
  world.close();
  lease::epoch given = 0;
  for (int life = 0; life < 4; ++life) {
    std::array<int, 2> pipe{};
    REQUIRE(::pipe(pipe.data()) == 0);
    const auto child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      auto opened = world.try_open();
      if (!opened) ::_exit(1);
      const auto book = (*opened)->leases();
      auto at = book->load()->newest;
      for (;;) {
        if (!book->save(shared_lease(++at))) ::_exit(2);
        if (::write(pipe[1], &at, sizeof at) != sizeof at) ::_exit(3);
      }
    }
    ::close(pipe[1]);
    lease::epoch at = 0;
    for (int i = 0; i < 50; ++i) {
      REQUIRE(::read(pipe[0], &at, sizeof at) == sizeof at);
      CHECK(at > given);
      given = at;
    }
    ::kill(child, SIGKILL);
    while (::read(pipe[0], &at, sizeof at) == sizeof at) given = at;
    ::close(pipe[0]);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    world.open();
    const auto saved = world->leases()->load();
    REQUIRE(saved);
    CHECK(saved->newest >= given);
    REQUIRE(saved->leases.size() == 1);
    CHECK(saved->leases[0].at >= given);
    world.close();
  }
}

TEST_CASE("a store of version 1 keeps what it has and gets the book", "[sqlite]") {
  store_world world;
  const auto job = world.job();
  world.close();
  {
    auto db = store::sqlite_database::open(world.path() / "store/tandem.sqlite",
                                           store::sqlite_database::access::read_write);
    REQUIRE(db);
    REQUIRE((*db)->execute(
        "DROP TABLE leases; DROP TABLE lease_epoch; DROP TABLE pins; PRAGMA user_version = 1"));
  }
  world.open();
  CHECK(world->find_job(job.id));
  CHECK(world->leases()->save(shared_lease(1)));
}

TEST_CASE("a book that is only looked at changes nothing", "[sqlite]") {
  store_world world;
  REQUIRE(world->leases()->save(shared_lease(1)));
  auto look = store::store::open_read_only(world.path() / "store");
  REQUIRE(look);
  CHECK((*look)->leases()->load()->leases.size() == 1);
  CHECK((*look)->leases()->save(shared_lease(2)).error().code == errc::conflict);
}

TEST_CASE("a lease is written within a fraction of a move's two milliseconds", "[.speed]") {
  store_world world;
  const auto book = world->leases();
  std::vector<double> us;
  for (lease::epoch at = 1; at <= 10'000; ++at) {
    const auto began = std::chrono::steady_clock::now();
    REQUIRE(book->save(shared_lease(at)));
    us.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - began)
                     .count());
  }
  std::sort(us.begin(), us.end());
  WARN("a lease in microseconds: median " << us[5000] << ", p99 " << us[9900] << ", most "
                                          << us.back());
}
