#include "runtime/store/sqlite_database.hpp"
#include "tests/support/store_world.hpp"

#include <catch2/catch.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <fstream>
#include <set>
#include <thread>

using namespace tandem;
using namespace tandem::store;
using tandem::test::store_world;
using tandem::test::temporary_folder;

TEST_CASE("a second one is refused with the process that holds the store", "[sqlite]") {
  store_world world;
  auto second = store::store::open(world.path() / "store");
  REQUIRE(!second);
  CHECK(second.error().code == errc::conflict);
  CHECK(second.error().detail == (world.path() / "store").string() +
                                     " is in use by another tandem (process " +
                                     std::to_string(::getpid()) +
                                     "): stop that one, or set another TANDEM_HOME or store.url");
  world.close();
  CHECK(store::store::open(world.path() / "store"));
}

TEST_CASE("a look beside the process that holds the store sees its last commit and changes nothing",
          "[sqlite]") {
  store_world world;
  auto job = world.job();
  auto look = store::store::open_read_only(world.path() / "store");
  REQUIRE(look);
  CHECK((*look)->find_job(job.id)->status == job_status::validating_files);
  REQUIRE(world->change_status(job.id, {job_status::validating_files}, job_status::queued));
  CHECK((*look)->find_job(job.id)->status == job_status::queued);
  auto refused = (*look)->change_status(job.id, {job_status::queued}, job_status::running);
  REQUIRE(!refused);
  CHECK(refused.error().code == errc::conflict);
  world.close();
  CHECK((*look)->find_job(job.id));
}

TEST_CASE("a look where there is no store makes none", "[sqlite]") {
  temporary_folder folder;
  auto look = store::store::open_read_only(folder.path() / "store");
  REQUIRE(!look);
  CHECK(look.error().code == errc::not_found);
  CHECK(!std::filesystem::exists(folder.path() / "store"));
}

TEST_CASE("a database of a newer version is refused and left as it is", "[sqlite]") {
  store_world world;
  world.job();
  world.close();
  {
    auto db = sqlite_database::open(world.path() / "store/tandem.sqlite",
                                    sqlite_database::access::read_write);
    REQUIRE(db);
    REQUIRE((*db)->execute("PRAGMA user_version = 99"));
  }
  for (auto* open : {&store::store::open, &store::store::open_read_only}) {
    auto refused = open(world.path() / "store");
    REQUIRE(!refused);
    CHECK(refused.error().code == errc::unsupported);
    CHECK(refused.error().detail.find("schema version 99") != std::string::npos);
  }
}

TEST_CASE("what is no database, or a damaged one, is refused as a bad file", "[sqlite]") {
  temporary_folder folder;
  std::filesystem::create_directories(folder.path() / "a");
  folder.write("a/tandem.sqlite", std::string(8192, 'x'));
  auto refused = store::store::open(folder.path() / "a");
  REQUIRE(!refused);
  CHECK(refused.error().code == errc::bad_file);

  store_world world;
  for (int i = 0; i < 50; ++i) world.job();
  world.close();
  auto path = world.path() / "store/tandem.sqlite";
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(4096 * 3);
    file << std::string(4096 * 4, '\x5a');
  }
  refused = store::store::open(world.path() / "store");
  REQUIRE(!refused);
  CHECK(refused.error().code == errc::bad_file);
  CHECK(refused.error().detail.find(path.string()) != std::string::npos);
}

TEST_CASE("a folder that cannot be made is refused as such", "[sqlite]") {
  temporary_folder folder;
  auto file = folder.write("plain", "");
  auto refused = store::store::open(file / "store");
  REQUIRE(!refused);
  CHECK(refused.error().code == errc::io);
}

TEST_CASE("a kill at any instant loses no change that was reported, and none is half there") {
  store_world world;
  world.close();
  constexpr int rounds = 12;
  std::set<std::string> reported;
  for (int round = 0; round < rounds; ++round) {
    std::array<int, 2> pipe{};
    REQUIRE(::pipe(pipe.data()) == 0);
    auto child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      auto opened = world.try_open();
      if (!opened) ::_exit(1);
      auto& s = **opened;
      for (;;) {
        auto part = s.part_path();
        std::ofstream(part) << "{\"text\": \"hello\"}\n";
        auto file = s.add_file({}, part);
        job_record job;
        job.training_file = file ? file->id : "";
        auto added = s.add_job(job);
        if (!added ||
            !s.change_status(added->id, {job_status::validating_files}, job_status::queued))
          ::_exit(2);
        if (::write(pipe[1], added->id.data(), 30) != 30) ::_exit(3);
      }
    }
    ::close(pipe[1]);
    std::array<char, 30> id{};
    // The kill falls at a different place each time: after so many jobs, while the next is made.
    for (int i = 0; i <= round; ++i) {
      REQUIRE(::read(pipe[0], id.data(), id.size()) == 30);
      reported.emplace(id.data(), id.size());
    }
    ::kill(child, SIGKILL);
    while (::read(pipe[0], id.data(), id.size()) == 30) reported.emplace(id.data(), id.size());
    ::close(pipe[0]);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));

    world.open();
    for (const auto& known : reported) {
      auto job = world->find_job(known);
      REQUIRE(job);
      CHECK(job->status == job_status::queued);
      CHECK(std::filesystem::file_size(world->file_path(job->training_file)) == 18);
    }
    // Beyond those at most the one in flight, and its file is there too.
    auto all = world->unfinished_jobs();
    CHECK(all.size() <= reported.size() + static_cast<std::size_t>(round) + 1);
    for (const auto& job : all) {
      CHECK(world->find_file(job.training_file));
      CHECK(!world->events_since(job.id, 0, 10)->empty());
    }
    auto files = world->list_files({}, {}, 10000, false);
    REQUIRE(files);
    std::size_t names = 0;
    for (const auto& entry : std::filesystem::directory_iterator(world.files())) {
      ++names;
      CHECK(entry.path().filename().string().starts_with("file-"));
    }
    CHECK(names == files->rows.size());
    world.close();
  }
}

TEST_CASE("many threads write and read one store: every change is there, one cancel wins") {
  store_world world;
  auto job = world.job_in(job_status::running);
  std::atomic<int> won{0};
  std::vector<std::thread> threads;
  constexpr int each = 25;
  for (int t = 0; t < 6; ++t)
    threads.emplace_back([&, t] {
      event_record event;
      event.job = job.id;
      event.message = std::to_string(t);
      for (int i = 0; i < each; ++i)
        if (!world->add_event(event) || !world->list_events(job.id, {}, 5) ||
            !world->find_job(job.id))
          std::abort();
      if (world->change_status(job.id, {job_status::running}, job_status::cancelled)) ++won;
    });
  for (auto& thread : threads) thread.join();
  CHECK(won == 1);
  auto events = world->events_since(job.id, 0, 1000);
  REQUIRE(events);
  CHECK(events->size() == 3 + 6 * each + 1);
  for (std::size_t i = 1; i < events->size(); ++i)
    CHECK(events->at(i).sequence > events->at(i - 1).sequence);
}
