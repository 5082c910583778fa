// A database of its own on the test server, gone when the test is. TANDEM_TEST_POSTGRES is the
// address of the server (test.sh starts one): "postgresql://USER:PASSWORD@HOST:PORT".
#pragma once

#include "kernels/ensure.hpp"
#include "runtime/store/postgres_connection.hpp"
#include "runtime/store/store.hpp"

#include <chrono>
#include <cstdlib>
#include <string>

namespace tandem::test {

inline std::string postgres_server() {
  const char* url = std::getenv("TANDEM_TEST_POSTGRES");
  return url ? url : "";
}

// A busy machine may need longer to let somebody in than a head would wait.
inline std::string postgres_url(const std::string& database) {
  return postgres_server() + "/" + database + "?connect_timeout=30";
}

// One statement of a person who looks on; the first value it gives. On a busy machine the server
// may need longer for it than a store would wait: then it is asked again, three times at most.
inline std::string ask_postgres(const std::string& url, const std::string& sql) {
  for (int tries = 1;; ++tries) {
    auto session = store::postgres_connection::open(url, std::chrono::milliseconds(0));
    ensure(session.has_value(), session ? "" : session.error().detail.c_str());
    auto rows = (*session)->execute(sql);
    if (!rows && rows.error().code == errc::timed_out && tries <= 3) continue;
    ensure(rows.has_value(), rows ? "" : rows.error().detail.c_str());
    return rows->count() > 0 ? rows->text(0, 0) : "";
  }
}

class postgres_database_of_test {
 public:
  postgres_database_of_test() : name_(store::new_id("t")) {
    ask_postgres(postgres_url("postgres"), "CREATE DATABASE " + name_);
  }
  postgres_database_of_test(const postgres_database_of_test&) = delete;
  postgres_database_of_test& operator=(const postgres_database_of_test&) = delete;
  ~postgres_database_of_test() {
    ask_postgres(postgres_server() + "/postgres",
                 "DROP DATABASE IF EXISTS " + name_ + " WITH (FORCE)");
  }
  const std::string& name() const { return name_; }
  std::string url() const { return postgres_url(name_); }

 private:
  std::string name_;
};

}  // namespace tandem::test
