// Disks that say no: in children with a small file limit, and on a small file system of their own.
#include "runtime/durable_folder.hpp"
#include "runtime/train/checkpoint.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/train/fake_memory.hpp"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <csignal>
#include <fstream>
#include <iterator>

namespace tandem::train {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t few = 100'000;  // 400 KB a file

// What `work` wrote to its file, from a child that ended with 0; its exit status otherwise.
struct child_result {
  int status = 0;
  std::string said;
};
template <class Work>
child_result in_child(const fs::path& answer, Work work) {
  const pid_t child = ::fork();
  if (child == 0) std::_Exit(work());
  int status = 0;
  ::waitpid(child, &status, 0);
  std::ifstream said(answer);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1,
          {std::istreambuf_iterator<char>(said), std::istreambuf_iterator<char>()}};
}

result<fs::path> write(const fs::path& folder, std::int64_t step, std::size_t floats = few) {
  return write_checkpoint(folder, test::facts_at(step), test::fake_group(floats, step), 3);
}

int count_in(const fs::path& folder) {
  return static_cast<int>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

constexpr int not_possible = 77;

TEST_CASE("a write refused in the middle leaves nothing behind and says how far it came") {
  test::temporary_folder home;
  const auto folder = home.path() / "checkpoints";
  REQUIRE(write(folder, 1).has_value());
  const auto answer = home.path() / "answer";
  const auto child = in_child(answer, [&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const auto group = test::fake_group(few, 2);
    const rlimit limit{100'000, 100'000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return not_possible;
    const auto refused = write_checkpoint(folder, test::facts_at(2), group, 3);
    if (refused || refused.error().code != errc::io) return 1;
    std::ofstream(answer) << refused.error().detail;
    return 0;
  });
  REQUIRE(child.status == 0);
  CHECK_THAT(child.said, Catch::Contains("the checkpoint of step 2 (2248576 bytes)") &&
                             Catch::Contains("parameters.f32") &&
                             Catch::Contains("100000 bytes of it written") &&
                             Catch::Contains("free there") && Catch::Contains("checkpoints_kept"));
  CHECK(count_in(folder) == 1);
  CHECK(find_checkpoint(folder).path == checkpoint_path(folder, 1));
}

TEST_CASE("a folder that cannot be written is refused by name") {
  test::temporary_folder home;
  home.write("file", "");
  const auto refused = write(home.path() / "file" / "checkpoints", 1);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == errc::io);
  CHECK_THAT(refused.error().detail, Catch::Contains((home.path() / "file").string()));
}

// A tmpfs of four megabytes, in a name space of the child's own.
bool mount_small_disk(const fs::path& at) {
  if (::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  return ::mount("none", at.c_str(), "tmpfs", 0, "size=4m,mode=0777") == 0;
}

TEST_CASE("a checkpoint that does not fit the disk is refused before a byte is written") {
  test::temporary_folder home;
  const auto disk = home.path() / "disk";
  fs::create_directories(disk);
  const auto answer = home.path() / "answer";
  const auto child = in_child(answer, [&] {
    if (!mount_small_disk(disk)) return not_possible;
    const auto first = write(disk, 1);
    if (!first) {
      std::ofstream(answer) << first.error().detail;
      return 1;
    }
    const auto refused = write(disk, 2, 2 * few);
    if (refused || refused.error().code != errc::io || count_in(disk) != 1) return 2;
    if (find_checkpoint(disk).path != *first) return 3;
    std::ofstream(answer) << refused.error().detail;

    // Filled up by somebody else while it is written: the same, from the middle.
    auto begun = durable_folder::begin(disk / "x", 1);
    if (!begun) return 4;
    auto file = begun->file("file");
    const std::vector<std::byte> many(std::size_t{8} << 20);
    const auto full = file->write(many);
    if (full || full.error().detail.find("the disk is full") == std::string::npos) return 5;
    return 0;
  });
  if (child.status == not_possible) {
    WARN("skipped: this machine does not let a process mount a disk of its own");
    return;
  }
  INFO(child.said);
  REQUIRE(child.status == 0);
  CHECK_THAT(child.said,
             Catch::Contains("needs 3448576 bytes and ") && Catch::Contains(" are free there"));
}

}  // namespace
}  // namespace tandem::train
