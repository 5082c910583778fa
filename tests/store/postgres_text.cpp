#include "runtime/store/postgres_dialect.hpp"
#include "runtime/store/postgres_errors.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::store;

TEST_CASE("statements and tables turn into PostgreSQL's own", "[pure]") {
  CHECK(postgres_statement("SELECT a FROM t WHERE b = ?1 AND c = ?12") ==
        "SELECT a FROM t WHERE b = $1 AND c = $12");
  CHECK(postgres_tables("CREATE TABLE t (\n  n INTEGER PRIMARY KEY AUTOINCREMENT,\n"
                        "  a TEXT NOT NULL,\n  b INTEGER NOT NULL\n) STRICT;") ==
        "CREATE TABLE t (\n  n BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,\n"
        "  a TEXT COLLATE \"C\" NOT NULL,\n  b BIGINT NOT NULL\n);");
}

TEST_CASE("a text that PostgreSQL cannot hold gets a mark where it cannot", "[pure]") {
  CHECK(postgres_text("plain ü") == "plain ü");
  CHECK(postgres_text("a\xff") == "a\xEF\xBF\xBD");
  CHECK(postgres_text(std::string_view("a\0b", 3)) ==
        "a\xEF\xBF\xBD"
        "b");
}

TEST_CASE("what a server says becomes one line that says what to do", "[pure]") {
  const auto why = [](std::string_view text) {
    return no_connection("postgresql://u@h:5432/d", "d", "u", text);
  };
  CHECK(why("connection to server at \"h\", port 5432 failed: Connection refused\n\tIs the …\n") ==
        error{errc::unavailable,
              "postgresql://u@h:5432/d: no PostgreSQL server answers there: start it, or correct "
              "store.url",
              "store.url"});
  CHECK(why("FATAL:  password authentication failed for user \"u\"").code == errc::unauthorized);
  CHECK(why("FATAL:  database \"d\" does not exist").code == errc::not_found);
  CHECK(why("FATAL:  role \"u\" does not exist").code == errc::unauthorized);
  CHECK(why("something new\nand more").detail ==
        "postgresql://u@h:5432/d: no connection: something new");
  CHECK(statement_failed("x", "57014", "canceling", 5000).code == errc::timed_out);
  CHECK(statement_failed("x", "25006", "", 5000).code == errc::unsupported);
  CHECK(statement_failed("x", "53100", "", 5000).code == errc::io);
  CHECK(ends_session("57P01"));
  CHECK(ends_session("08006"));
  CHECK(!ends_session("57014"));
}
