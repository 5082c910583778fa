#include "runtime/postgres_url.hpp"

#include <catch2/catch.hpp>

using tandem::names_postgres;
using tandem::without_password;

TEST_CASE("an address of PostgreSQL is known by its scheme") {
  CHECK(names_postgres("postgresql://host/db"));
  CHECK(names_postgres("postgres://"));
  CHECK(!names_postgres("sqlite:postgres://"));
  CHECK(!names_postgres(""));
}

TEST_CASE("no password is shown, wherever in an address it stands") {
  CHECK(without_password("postgresql://u:secret@h:5432/d") == "postgresql://u:***@h:5432/d");
  CHECK(without_password("postgresql://u:p@ss@w:ord@h/d") == "postgresql://u:***@h/d");
  CHECK(without_password("postgresql://u:a/b?c@h/d") == "postgresql://u:***@h/d");
  CHECK(without_password("postgresql://h/d?user=u&password=secret&sslmode=require") ==
        "postgresql://h/d?user=u&password=***&sslmode=require");
  CHECK(without_password("postgresql://h/d?sslpassword=secret") ==
        "postgresql://h/d?sslpassword=***");
  CHECK(without_password("postgresql://h/d?p%61ssword=secret") ==
        "postgresql://h/d?p%61ssword=***");
  CHECK(without_password("postgress://u:secret@h") == "postgress://u:***@h");
  CHECK(without_password("postgresql://h/d?password=se@cret") == "postgresql://h/d?password=***");
  CHECK(without_password("postgresql://h:1/d?password=se@cret").find("se") == std::string::npos);
  CHECK(without_password("postgresql://u@h/d") == "postgresql://u@h/d");
  CHECK(without_password("sqlite:/var/lib/tandem") == "sqlite:/var/lib/tandem");
}
