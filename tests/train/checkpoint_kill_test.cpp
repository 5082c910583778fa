// Kills a writer before each of its system calls in turn: between two of them nothing on the disk
// changes, so these are all the instants there are.
#include "runtime/train/checkpoint.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/train/fake_memory.hpp"

#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <csignal>

namespace tandem::train {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t few = 1001;

void write(const fs::path& folder, std::int64_t step) {
  const auto path = write_checkpoint(folder, test::facts_at(step), test::fake_group(few, step), 2);
  if (!path) std::_Exit(1);
}

// Runs `work` in a child up to its system call number `calls` (counted from 0) and kills it before
// the kernel carries that out. False when it ended by itself before, or tracing is not allowed.
enum class ended : std::uint8_t { killed, by_itself, not_traced };
template <class Work>
ended run_until(int calls, Work work) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) std::_Exit(2);
    ::raise(SIGSTOP);
    work();
    std::_Exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFSTOPPED(status)) return ended::not_traced;
  // Stops at a call's entry and at its end in turn.
  for (int stop = 0; stop < 2 * calls + 1; ++stop) {
    if (::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr) != 0) return ended::not_traced;
    ::waitpid(child, &status, 0);
    if (WIFEXITED(status)) {
      CHECK(WEXITSTATUS(status) == 0);
      return ended::by_itself;
    }
    REQUIRE(WIFSTOPPED(status));
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  CHECK(WIFSIGNALED(status));
  return ended::killed;
}

void check_whole(const fs::path& path) {
  const auto facts = read_checkpoint_facts(path);
  REQUIRE(facts.has_value());
  std::vector<float> parameters(few);
  std::vector<float> first(few);
  std::vector<float> second(few);
  REQUIRE(read_parameters(path, parameters).has_value());
  REQUIRE(read_moments(path, 0, first, second).has_value());
  REQUIRE(parameters.back() == test::fake_memory::parameter_at(few - 1, facts->step));
  REQUIRE(second.back() == parameters.back() * 0.5F);
}

TEST_CASE("whenever its writer is killed, the newest checkpoint is the previous or the new one") {
  test::temporary_folder home;
  write(home.path(), 1);
  write(home.path(), 2);
  int calls = 0;
  int previous = 0;
  for (;; ++calls) {
    const auto how = run_until(calls, [&] { write(home.path(), 3); });
    if (how == ended::not_traced) {
      WARN("skipped: this machine does not let a process trace its child");
      return;
    }
    const auto found = find_checkpoint(home.path());
    REQUIRE(found.path);
    CHECK(found.broken.empty());
    const auto step = read_checkpoint_facts(*found.path)->step;
    CHECK((step == 2 || step == 3));
    if (step == 2) ++previous;
    check_whole(*found.path);
    if (how == ended::by_itself) break;

    // Whoever comes after writes on as if nothing had been, and leaves nothing but checkpoints.
    fs::remove_all(home.path() / "step-00000003");
    write(home.path(), 2);
    for (const auto& entry : fs::directory_iterator(home.path()))
      REQUIRE(entry.path().extension() != ".part");
    if (!fs::exists(home.path() / "step-00000001")) write(home.path(), 1);
  }
  CHECK(calls > 30);
  CHECK(previous > 20);
  CHECK(previous < calls);
  std::printf("killed before each of %d system calls\n", calls);
}

TEST_CASE("a step written again is whole whenever its writer is killed") {
  test::temporary_folder home;
  write(home.path(), 5);
  for (int calls = 0;; ++calls) {
    const auto how = run_until(calls, [&] { write(home.path(), 5); });
    if (how == ended::not_traced) {
      WARN("skipped: this machine does not let a process trace its child");
      return;
    }
    const auto found = find_checkpoint(home.path());
    REQUIRE(found.path);
    CHECK(found.broken.empty());
    check_whole(*found.path);
    if (how == ended::by_itself) break;
  }
}

}  // namespace
}  // namespace tandem::train
