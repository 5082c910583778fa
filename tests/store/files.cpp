#include "tests/support/store_world.hpp"

#include <catch2/catch.hpp>

#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>
#include <fstream>
#include <iterator>

using namespace tandem;
using namespace tandem::store;
using tandem::test::store_world;

namespace {

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("a file is a row and its bytes, until it is removed") {
  store_world world;
  auto file = world.file("abc\n", "batch");
  CHECK(file.id.starts_with("file-"));
  CHECK(file.id.size() == 5 + 24);
  CHECK(file.bytes == 4);
  CHECK(file.purpose == "batch");
  CHECK(bytes_of(world->file_path(file.id)) == "abc\n");
  world.close();
  world.open();
  auto found = world->find_file(file.id);
  REQUIRE(found);
  CHECK(*found == file);
  REQUIRE(world->remove_file(file.id));
  CHECK(!std::filesystem::exists(world->file_path(file.id)));
  CHECK(world->find_file(file.id).error().code == errc::not_found);
  CHECK(world->remove_file(file.id).error().code == errc::not_found);
}

TEST_CASE("files are listed by purpose, in either order, in pages") {
  store_world world;
  std::vector<std::string> tune;
  for (int i = 0; i < 3; ++i) {
    tune.push_back(world.file("x", "fine-tune").id);
    world.file("y", "batch");
  }
  auto page = world->list_files("fine-tune", {}, 2, false);
  REQUIRE(page);
  CHECK(page->has_more);
  CHECK(page->rows.at(0).id == tune[2]);
  CHECK(page->rows.at(1).id == tune[1]);
  page = world->list_files("fine-tune", tune[1], 2, false);
  REQUIRE(page);
  CHECK(!page->has_more);
  CHECK(page->rows.at(0).id == tune[0]);
  page = world->list_files("fine-tune", {}, 2, true);
  REQUIRE(page);
  CHECK(page->has_more);
  CHECK(page->rows.at(0).id == tune[0]);
  page = world->list_files("fine-tune", tune[1], 2, true);
  REQUIRE(page);
  CHECK(page->rows.size() == 1);
  CHECK(!page->has_more);
  CHECK(world->list_files({}, {}, 100, false)->rows.size() == 6);
  CHECK(world->list_files("none", {}, 100, false)->rows.empty());
  CHECK(world->list_files({}, "file-none", 100, false).error().param == "after");
}

TEST_CASE("a file that a job needs stays until the job has ended") {
  store_world world;
  auto job = world.job_in(job_status::running);
  auto refused = world->remove_file(job.training_file);
  REQUIRE(!refused);
  CHECK(refused.error().code == errc::conflict);
  CHECK(refused.error().detail.find(job.id + ", which is running") != std::string::npos);
  CHECK(std::filesystem::exists(world->file_path(job.training_file)));
  REQUIRE(world->change_status(job.id, {job_status::running}, job_status::cancelled));
  CHECK(world->remove_file(job.training_file));
}

TEST_CASE("what an upload that was cut off left is gone at the next start") {
  store_world world;
  auto file = world.file();
  auto part = world->part_path();
  std::ofstream(part) << "half a";
  auto lost = world->file_path("file-0123456789abcdef01234567");
  std::ofstream(lost) << "renamed, and no row";
  world.close();
  world.open();
  CHECK(!std::filesystem::exists(part));
  CHECK(!std::filesystem::exists(lost));
  CHECK(std::filesystem::exists(world->file_path(file.id)));
}

TEST_CASE("a part that is not there is refused, and no row is made") {
  store_world world;
  auto refused = world->add_file({}, world->part_path());
  REQUIRE(!refused);
  CHECK(refused.error().code == errc::io);
  CHECK(world->list_files({}, {}, 10, false)->rows.empty());
}

TEST_CASE("a disk that takes no more bytes is an error of this change alone", "[sqlite]") {
  store_world world;
  auto job = world.job_in(job_status::running);
  world.close();
  // In a child: no file of its may grow past this limit, which is what a full disk looks like.
  auto child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    auto opened = store::store::open(world.path() / "store");
    if (!opened) ::_exit(10);
    rlimit limit{64 << 10, 64 << 10};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(11);
    event_record event;
    event.job = job.id;
    event.message = std::string(32 << 10, 'x');
    for (int i = 0; i < 100; ++i) {
      auto added = (*opened)->add_event(event);
      if (added) continue;
      if (added.error().code != errc::io) ::_exit(12);
      // Reading goes on, and so does writing once there is room again.
      if (!(*opened)->find_job(job.id)) ::_exit(13);
      ::_exit(0);
    }
    ::_exit(14);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  world.open();
  CHECK(world->find_job(job.id)->status == job_status::running);
}
