// Ranks over NCCL: its library, what a rank does when others come, work and are lost, and what the
// operations make, by a library that behaves as NCCL does (fake/).
#include "kernels/cuda/nccl_collective.hpp"
#include "kernels/cuda/neighbours.hpp"
#include "kernels/rank_sum.hpp"
#include "tests/kernels/test_device.hpp"
#include "tests/nccl/fake/fake_nccl.hpp"

#include <catch2/catch.hpp>

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <future>
#include <numeric>
#include <thread>

using namespace tandem::kernels;
using namespace tandem::kernels::cuda;
using namespace tandem::kernels::test;
using namespace std::chrono_literals;

namespace {

nccl_library open_as(const char* name, const char* version) {
  setenv("FAKE_NCCL_VERSION", version, 1);
  auto library = open_nccl(std::array{name});
  unsetenv("FAKE_NCCL_VERSION");
  return library;
}

const nccl_library& library() {
  static const nccl_library opened = open_nccl(std::array{TANDEM_FAKE_NCCL});
  REQUIRE(opened.facts.why_not.empty());
  return opened;
}

fake_nccl& fake() {
  library();
  void* const there = dlopen(TANDEM_FAKE_NCCL, RTLD_NOW | RTLD_NOLOAD);
  REQUIRE(there != nullptr);
  return *reinterpret_cast<fake_nccl_getter>(dlsym(there, "fake_nccl_here"))();
}

nccl_id new_id() {
  ncclUniqueId made{};
  REQUIRE(library().call.get_unique_id(&made) == ncclSuccess);
  nccl_id id;
  std::copy_n(made.internal, id.size(), id.begin());
  return id;
}

constexpr nccl_patience hasty{.for_others = 10s, .between_looks = 1ms};

float sum_by_definition(const floats& x, std::size_t begin, std::size_t end) {
  if (end - begin == 1) return x[begin];
  const std::size_t middle = (begin + end) / 2;
  return sum_by_definition(x, begin, middle) + sum_by_definition(x, middle, end);
}

// The moves as plain loops over the host's memory.
class plain_moves final : public rank_moves {
 public:
  explicit plain_moves(std::size_t numbers) : room_(numbers, -1.0F) {}
  std::span<float> room() override { return room_; }
  bool remembered() const override { return all_known; }
  void place(std::span<const std::int64_t> columns_R, rows_out whole_TX) override {
    const float* from = room_.data();
    std::int64_t first = 0;
    for (const auto columns : columns_R) {
      for (std::int64_t t = 0; t < whole_TX.rows; ++t, from += columns)
        std::copy_n(from, columns, whole_TX.row(t) + first);
      first += columns;
    }
  }
  void add(int ranks, rows_out x_TX) override {
    for (std::int64_t t = 0; t < x_TX.rows; ++t)
      for (std::int64_t i = 0; i < x_TX.columns; ++i)
        x_TX.row(t)[i] =
            rank_sum(room_.data() + t * x_TX.columns + i, ranks, x_TX.rows * x_TX.columns);
  }
  bool all_known = false;

 private:
  floats room_;
};

struct one_rank {
  one_rank(const nccl_id& id, int rank, int size, std::size_t room)
      : device(cpu::make_backend({})) {
    device->attach_calling_thread();
    auto made = std::make_unique<plain_moves>(room);
    moves = made.get();
    std::string why_not;
    auto group = nccl_communicator::join(library().call, id, rank, size, why_not, hasty);
    all = std::make_unique<nccl_collective>(*device, std::move(made), std::move(group), nullptr);
  }
  std::unique_ptr<backend> device;
  plain_moves* moves;
  std::unique_ptr<nccl_collective> all;
};

// f(rank) on a thread of each.
template <class F>
void on_each(int size, std::size_t room, const F& f) {
  const auto id = new_id();
  std::vector<std::future<void>> threads;
  for (int r = 0; r < size; ++r)
    threads.push_back(std::async(std::launch::async, [&, r] {
      one_rank rank(id, r, size, room);
      rank.all->meet();
      f(rank);
    }));
  for (auto& thread : threads) thread.get();
}

}  // namespace

TEST_CASE("a library that cannot be used is refused in one line that says what to do") {
  const auto check = [](const nccl_library& refused, const char* why) {
    CAPTURE(refused.facts.why_not);
    CHECK(refused.facts.version.empty());
    CHECK(refused.facts.why_not.find(why) != std::string::npos);
    CHECK(refused.facts.why_not.find("install NCCL 2.18") != std::string::npos);
    CHECK(refused.facts.why_not.find('\n') == std::string::npos);
    CHECK(refused.call.all_gather == nullptr);
  };
  check(open_nccl(std::array{"libnothing_of_that_name.so.2"}), "libnothing_of_that_name.so.2");
  check(open_as(TANDEM_FAKE_NCCL, "2708"), "too old a version (2708)");
  check(open_as(TANDEM_FAKE_NCCL, "21705"), "too old a version (21705)");
  check(open_as(TANDEM_FAKE_NCCL, "30100"), "is NCCL 3.1.0, this build knows 2.x alone");
  check(open_as(TANDEM_FAKE_NCCL_LACKING, "22809"), "lacks ncclCommFinalize");
}

TEST_CASE("the first library that opens is taken, and says its version and where it lies") {
  const auto found = open_nccl(std::array{"libnothing_of_that_name.so.2", TANDEM_FAKE_NCCL});
  CHECK(found.facts.why_not.empty());
  CHECK(found.facts.version == "2.28.9");
  CHECK(found.facts.path == TANDEM_FAKE_NCCL);
}

TEST_CASE("a survey finds NCCL or says in one line why not, and so with what else is beside GPUs") {
  const auto around = look_around();
  for (const auto& one : {around.nccl, around.cudnn, around.nvlink, around.rdma}) {
    CAPTURE(one.found, one.why_not);
    CHECK(one.found.empty() != one.why_not.empty());
    CHECK(one.why_not.find('\n') == std::string::npos);
  }
}

TEST_CASE("a rank joins without blocking, and goes once all is done") {
  fake().forget();
  std::string why_not;
  {
    const auto group = nccl_communicator::join(library().call, new_id(), 0, 1, why_not, hasty);
    REQUIRE(group != nullptr);
    CHECK(group->rank() == 0);
    CHECK(group->size() == 1);
  }
  CHECK(why_not.empty());
  CHECK(fake().called() == std::vector<std::string>{"join freely", "finalize", "destroy"});
}

TEST_CASE("a rank that cannot join says why, and leaves nothing behind") {
  fake().forget();
  fake().joins = ncclRemoteError;
  std::string why_not;
  CHECK(nccl_communicator::join(library().call, new_id(), 1, 2, why_not, hasty) == nullptr);
  CHECK(why_not ==
        "NCCL: rank 1 of 2 cannot join: remote process exited: socket closed by peer "
        "(NCCL_DEBUG=INFO says more)");
  CHECK(fake().called() == std::vector<std::string>{"join freely", "abort"});
}

TEST_CASE("a rank that waits in vain for the others gives up") {
  fake().forget();
  fake().busy_looks = 1 << 30;
  std::string why_not;
  CHECK(nccl_communicator::join(library().call, new_id(), 1, 2, why_not, {.for_others = 30ms}) ==
        nullptr);
  CHECK(why_not.find("rank 1 of 2 waited 0 s for the others") != std::string::npos);
  CHECK(fake().called() == std::vector<std::string>{"join freely", "abort"});
}

TEST_CASE("a peer that is lost is noticed while nothing is asked for") {
  fake().forget();
  std::string why_not;
  std::promise<std::string> told;
  auto group = nccl_communicator::join(library().call, new_id(), 0, 1, why_not, hasty,
                                       [&](const std::string& why) { told.set_value(why); });
  REQUIRE(group != nullptr);
  group->run("sum", 64, 4096, [](ncclComm_t) { return ncclSuccess; });
  {
    const std::lock_guard lock(fake().mutex);
    fake().found_later = ncclRemoteError;
  }
  auto words = told.get_future();
  REQUIRE(words.wait_for(10s) == std::future_status::ready);
  CHECK(words.get() ==
        "NCCL: sum (64 x 4096) of rank 0 of 1: remote process exited: socket closed by peer");
  group.reset();
  CHECK(fake().called() == std::vector<std::string>{"join freely", "abort"});
}

TEST_CASE("an operation that fails names itself and its shape, once") {
  fake().forget();
  std::string why_not;
  std::vector<std::string> told;
  auto group =
      nccl_communicator::join(library().call, new_id(), 0, 1, why_not, {.between_looks = 1h},
                              [&](const std::string& why) { told.push_back(why); });
  REQUIRE(group != nullptr);
  for (int i = 0; i < 2; ++i)
    group->run("gather_columns", 3, 100, [](ncclComm_t) { return ncclSystemError; });
  REQUIRE(told.size() == 1);
  CHECK(told[0].find("gather_columns (3 x 100) of rank 0 of 1: some error") != std::string::npos);
  group.reset();
  CHECK(fake().called() == std::vector<std::string>{"join freely", "abort"});
}

TEST_CASE("the process ends with one line when its group is broken") {
  std::array<int, 2> ends{};
  REQUIRE(pipe(ends.data()) == 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    std::signal(SIGABRT, SIG_DFL);
    end_process("NCCL: sum (1 x 2) of rank 0 of 1: gone");
  }
  close(ends[1]);
  std::array<char, 256> said{};
  const auto count = read(ends[0], said.data(), said.size() - 1);
  close(ends[0]);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGABRT);
  CHECK(std::string(said.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0))) ==
        "tandem: NCCL: sum (1 x 2) of rank 0 of 1: gone\n");
}

TEST_CASE("numbers of ranks are added by the tree of halves") {
  randoms random(1);
  for (int ranks = 1; ranks <= most_ranks; ++ranks) {
    const auto x = random.values(ranks, 1e3F);
    floats apart;  // every third number
    for (const float v : x) apart.insert(apart.end(), {v, -7.0F, -7.0F});
    REQUIRE(rank_sum(x.data(), ranks, 1) == sum_by_definition(x, 0, x.size()));
    REQUIRE(rank_sum(apart.data(), ranks, 3) == rank_sum(x.data(), ranks, 1));
  }
}

TEST_CASE("columns of all ranks come to stand side by side, whatever each has and fits the room") {
  fake().forget();
  const std::vector<std::vector<std::int64_t>> layouts{{5},       {4, 4},       {3, 5},
                                                       {0, 2, 7}, {6, 6, 6, 6}, {1, 0, 0, 2, 9}};
  for (const auto& columns : layouts) {
    const auto size = static_cast<int>(columns.size());
    const auto width = std::accumulate(columns.begin(), columns.end(), std::int64_t{0});
    for (const std::int64_t rows : {1, 3, 10}) {
      // The least has no room for a row of some.
      for (const auto room : {static_cast<std::size_t>(2 * (size + 1)),
                              static_cast<std::size_t>(2 * (size + 1) + 4 * width), 10'000UL}) {
        randoms random(7);
        const auto whole = random.values(rows * width);
        std::vector<floats> got(columns.size());
        on_each(size, room, [&](one_rank& rank) {
          const int r = rank.all->rank();
          const auto mine = columns[static_cast<std::size_t>(r)];
          const auto first = std::accumulate(columns.begin(), columns.begin() + r, std::int64_t{0});
          // The part lies in rows two wider than it is.
          floats part(static_cast<std::size_t>(rows * (mine + 2)), -3.0F);
          for (std::int64_t t = 0; t < rows; ++t)
            std::copy_n(whole.begin() + t * width + first, mine, part.begin() + t * (mine + 2));
          floats into(static_cast<std::size_t>(rows * (width + 1)), -5.0F);
          rank.all->gather_columns({part.data(), rows, mine, mine + 2}, columns,
                                   {into.data(), rows, width, width + 1});
          auto& kept = got[static_cast<std::size_t>(r)];
          for (std::int64_t t = 0; t < rows; ++t) {
            const auto row = into.begin() + t * (width + 1);
            kept.insert(kept.end(), row, row + width);
            if (row[width] != -5.0F) kept.clear();  // what lies between rows is not touched
          }
        });
        CAPTURE(size, rows, room);
        for (const auto& one : got) CHECK(one == whole);
      }
    }
  }
}

TEST_CASE("every rank has the tree's sum, in portions or at once, and nothing beside it changes") {
  fake().forget();
  for (const int size : {1, 2, 3, 4, 7}) {
    for (const auto& [rows, columns] :
         {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 40}, {20, 6}}) {
      for (const auto room : {static_cast<std::size_t>(12 * size + 8), 10'000UL}) {
        randoms random(9);
        std::vector<floats> parts;
        for (int r = 0; r < size; ++r) parts.push_back(random.values(rows * columns, 100.0F));
        floats want;
        for (std::size_t i = 0; i < parts[0].size(); ++i) {
          floats terms;
          for (const auto& part : parts) terms.push_back(part[i]);
          want.push_back(sum_by_definition(terms, 0, terms.size()));
        }
        std::vector<floats> got(parts.size());
        on_each(size, room, [&](one_rank& rank) {
          const auto r = static_cast<std::size_t>(rank.all->rank());
          floats x(static_cast<std::size_t>(rows * (columns + 1)), -5.0F);
          for (std::int64_t t = 0; t < rows; ++t)
            std::copy_n(parts[r].begin() + t * columns, columns, x.begin() + t * (columns + 1));
          rank.all->sum({x.data(), rows, columns, columns + 1});
          for (std::int64_t t = 0; t < rows; ++t) {
            const auto row = x.begin() + t * (columns + 1);
            got[r].insert(got[r].end(), row, row + columns);
            if (row[columns] != -5.0F) got[r].clear();
          }
        });
        CAPTURE(size, rows, columns, room);
        for (const auto& one : got) CHECK(one == want);
      }
    }
  }
}

TEST_CASE("equal columns go in one gather, others in a broadcast of each rank that has some") {
  fake().forget();
  one_rank rank(new_id(), 0, 1, 1000);
  floats x(12);
  rank.all->gather_columns({x.data(), 2, 3}, std::array<std::int64_t, 1>{3}, {x.data() + 6, 2, 3});
  CHECK(fake().called() == std::vector<std::string>{"join freely", "gather 6"});
  fake().forget();
  on_each(3, 1000, [&](one_rank& one) {
    const std::array<std::int64_t, 3> columns{2, 0, 1};
    floats part(8);
    floats whole(12);
    const auto mine = columns[static_cast<std::size_t>(one.all->rank())];
    one.all->gather_columns({part.data(), 4, mine}, columns, {whole.data(), 4, 3});
  });
  const auto calls = fake().called();
  CHECK(std::count(calls.begin(), calls.end(), "broadcast of 0 8") == 3);
  CHECK(std::count(calls.begin(), calls.end(), "broadcast of 2 4") == 3);
  CHECK(std::none_of(calls.begin(), calls.end(),
                     [](const std::string& call) { return call.starts_with("broadcast of 1 0"); }));
}

TEST_CASE("a program that runs again has its operations already: nothing is asked for") {
  one_rank rank(new_id(), 0, 1, 1000);
  rank.moves->all_known = true;
  fake().forget();
  floats x(12, 1.0F);
  rank.all->sum({x.data(), 3, 4});
  rank.all->gather_columns({x.data(), 1, 4}, std::array<std::int64_t, 1>{4}, {x.data() + 4, 1, 4});
  CHECK(fake().called().empty());
}
