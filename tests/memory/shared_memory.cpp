#include "runtime/memory/shared_memory.hpp"
#include "runtime/memory/arena.hpp"
#include "runtime/memory/kv_memory.hpp"

#include <sys/mman.h>
#include <sys/wait.h>
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdint>

#include <unistd.h>

using namespace tandem;
using namespace tandem::memory;

namespace {

constexpr std::size_t some = 3 << 20;

}  // namespace

TEST_CASE("another process reads what is written here after it began") {
  const auto lent = std::make_shared<shared_pages>();
  ledger book(64 << 20, host_memory(), lent);
  auto blocks = arena::reserve(book, owner::kv_blocks, some, "blocks");
  REQUIRE(blocks);
  const auto place = lent->place_of(blocks->bytes());
  REQUIRE(place);
  CHECK(std::all_of(blocks->bytes().begin(), blocks->bytes().end(),
                    [](std::byte b) { return b == std::byte{0}; }));
  // A child that execs nothing has our pages anyhow: what is written after its birth tells.
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const auto child = ::fork();
  if (child == 0) {
    char go = 0;
    if (::read(ready[0], &go, 1) != 1) ::_exit(1);
    ::munmap(blocks->bytes().data(), some);
    const auto view = shared_view::open(*place);
    ::_exit(view && view->bytes().size() == some && view->bytes()[some - 1] == std::byte{7} ? 0
                                                                                            : 2);
  }
  blocks->bytes()[some - 1] = std::byte{7};
  REQUIRE(::write(ready[1], "g", 1) == 1);
  int status = -1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_CASE("a view lasts as long as it is held, whatever its owner does") {
  const auto lent = std::make_shared<shared_pages>();
  std::string why;
  const auto pages = lent->map(some, why);
  REQUIRE_FALSE(pages.empty());
  pages[0] = std::byte{5};
  const auto place = lent->place_of(pages);
  REQUIRE(place);
  auto view = shared_view::open(*place);
  REQUIRE(view);
  lent->unmap(pages);
  CHECK(view->bytes()[0] == std::byte{5});
  CHECK_FALSE(lent->place_of(pages));
  CHECK_FALSE(shared_view::open(*place));
}

TEST_CASE("memory that is not what was described is refused with why") {
  const auto lent = std::make_shared<shared_pages>();
  std::string why;
  const auto pages = lent->map(some, why);
  REQUIRE_FALSE(pages.empty());
  const auto place = *lent->place_of(pages);
  const auto refusal = [&](auto change) {
    auto other = place;
    change(other);
    const auto view = shared_view::open(other);
    return view ? std::string() : view.error().detail;
  };
  CHECK(refusal([](auto& p) { p.machine = "another"; }).find("another machine") !=
        std::string::npos);
  CHECK(refusal([](auto& p) { ++p.inode; }).find("another one") != std::string::npos);
  CHECK(refusal([](auto& p) { p.bytes *= 2; }).find("another one") != std::string::npos);
  CHECK(refusal([](auto& p) { p.bytes = 0; }).find("another one") != std::string::npos);
  CHECK(refusal([](auto& p) { p.file = 100'000; }).find("No such file") != std::string::npos);
  CHECK(refusal([](auto& p) { p.process = 1 << 30; }).find("process 1073741824") !=
        std::string::npos);
  lent->unmap(pages);
}

TEST_CASE("only what either device can copy fits") {
  std::byte here{};
  kv_memory a{nullptr, {&here, 1}, 1, "cpu f16", {}};
  kv_memory b = a;
  CHECK(a.fits(b));
  b.layout = "cpu f32";
  CHECK_FALSE(a.fits(b));
  const kv_memory far{nullptr, {}, 1, "cpu f16", shared_place{"m", 1, 3, 9, 64}};
  CHECK(far.block_count() == 64);
  CHECK_FALSE(far.fits(a));
  CHECK_FALSE(a.fits(far));
  kv_memory beside = far;
  beside.place->process = 2;
  CHECK(far.fits(beside));
  beside.place->machine = "n";
  CHECK_FALSE(far.fits(beside));
  CHECK_FALSE(brought_here(a));
}
