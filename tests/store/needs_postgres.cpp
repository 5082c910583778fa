// Tests that are to run over PostgreSQL are skipped, with a line, where there is no server.
#include "tests/support/postgres.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace {

constexpr int skipped = 77;

[[maybe_unused]] const bool there = [] {
  const char* wanted = std::getenv("TANDEM_TEST_STORE");
  if (!wanted || std::string_view(wanted) != "postgres") return false;
  if (!tandem::test::postgres_server().empty()) return true;
  std::puts("skipped: TANDEM_TEST_POSTGRES names no server (test.sh starts one)");
  std::fflush(stdout);
  ::_exit(skipped);
}();

}  // namespace
