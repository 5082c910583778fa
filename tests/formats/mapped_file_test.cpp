#include "runtime/formats/mapped_file.hpp"

#include "tests/support/temporary_folder.hpp"

#include <sys/stat.h>

#include <string>

using namespace tandem;
using namespace tandem::test;
using formats::mapped_file;

TEST_CASE("pages that were dropped read the same again") {
  const temporary_folder folder;
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += static_cast<char>('a' + i % 26);
  const auto map = mapped_file::open(folder.write("text", text));
  REQUIRE(map);
  const auto bytes = map->bytes();
  REQUIRE(bytes.size() == text.size());
  map->drop(bytes.subspan(100, 9000));
  map->drop({});
  CHECK(std::equal(bytes.begin(), bytes.end(), std::as_bytes(std::span(text)).begin()));
}

TEST_CASE("a mapping moves, and its bytes stay where they are") {
  const temporary_folder folder;
  auto first = mapped_file::open(folder.write("text", "hello"));
  REQUIRE(first);
  const auto* const at = first->bytes().data();
  mapped_file second = std::move(*first);
  CHECK(second.bytes().data() == at);
  CHECK(first->bytes().empty());
  mapped_file third;
  third = std::move(second);
  CHECK(third.bytes().size() == 5);
}

TEST_CASE("a pipe is refused, not waited for") {
  const temporary_folder folder;
  const auto pipe = folder.path() / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const auto map = mapped_file::open(pipe);
  REQUIRE_FALSE(map);
  CHECK(map.error().code == errc::bad_file);
}
