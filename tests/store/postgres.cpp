#include "runtime/store/postgres_database.hpp"
#include "runtime/store/postgres_schema.hpp"
#include "runtime/store/schema.hpp"
#include "tests/support/store_world.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>

using namespace tandem;
using namespace tandem::store;
using namespace std::chrono_literals;
using tandem::test::ask_postgres;
using tandem::test::postgres_database_of_test;
using tandem::test::store_world;

namespace {

// Ends all sessions of a database, as an administrator or a network does.
void cut_all(const std::string& url) {
  ask_postgres(url,
               "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = "
               "current_database() AND pid <> pg_backend_pid()");
}

seat_options seat_for(const std::string& url, const std::string& called) {
  seat_options how;
  how.url = url;
  how.called = called;
  how.pause = [](auto) { return false; };  // takes the lead at the first look, or not at all
  return how;
}

std::string address_with(std::string url, const std::string& old, const std::string& now) {
  const auto at = url.find(old);
  ensure(at != url.npos, "an address with that part");
  return url.replace(at, old.size(), now);
}

errc refusal(const std::string& url) {
  auto opened = postgres_connection::open(url, 0ms);
  REQUIRE(!opened);
  INFO(opened.error().detail);
  CHECK(opened.error().detail.find('\n') == std::string::npos);
  CHECK(opened.error().detail.find("wrong-secret") == std::string::npos);
  return opened.error().code;
}

}  // namespace

TEST_CASE("what cannot be used is refused with the reason, in one line", "[postgres]") {
  postgres_database_of_test database;
  const auto url = database.url();
  CHECK(refusal("postgresql://tandem:wrong-secret@127.0.0.1:1/db") == errc::unavailable);
  CHECK(refusal(address_with(url, "/" + database.name(), "/not_there")) == errc::not_found);
  const auto colon = url.find(':', url.find("//"));
  const auto password = url.substr(colon + 1, url.find('@') - colon - 1);
  CHECK(refusal(address_with(url, ":" + password + "@", ":wrong-secret@")) == errc::unauthorized);
  CHECK(refusal("postgresql://tandem:wrong-secret/more@127.0.0.1:1/db") == errc::bad_request);
  CHECK(refusal("postgresql://tandem:12/wrong-secret@127.0.0.1:1/db") == errc::bad_request);
  CHECK(refusal("postgresql://tandem:wrong-secret@[::1") == errc::bad_request);
  ask_postgres(url,
               "ALTER DATABASE " + database.name() + " SET default_transaction_read_only = on");
  CHECK(refusal(url) == errc::unsupported);
}

TEST_CASE("a database of a newer version is refused by those who stand by too", "[postgres]") {
  postgres_database_of_test database;
  REQUIRE(leader_seat::take(seat_for(database.url(), "a:1")));
  ask_postgres(database.url(), "UPDATE tandem_store SET schema_version = 99");
  auto refused = leader_seat::take(seat_for(database.url(), "b:1"));
  REQUIRE(!refused);
  CHECK(refused.error().code == errc::unsupported);
  CHECK(refused.error().detail.find("schema version 99") != std::string::npos);
}

TEST_CASE("one head leads; the next is told who, and leads when that one ends, one epoch up",
          "[postgres]") {
  postgres_database_of_test database;
  auto first = leader_seat::take(seat_for(database.url(), "a:1"));
  REQUIRE(first);
  CHECK((*first)->epoch() == 1);
  std::promise<std::string> told;
  auto how = seat_for(database.url(), "b:2");
  how.tell = [&](const std::string& line) { told.set_value(line); };
  how.pause = [](auto length) {
    store_world::wait_for(length);
    return true;
  };
  auto second = std::async(std::launch::async, [&] { return leader_seat::take(std::move(how)); });
  CHECK(told.get_future().get() == "a:1 leads (epoch 1)");
  first->reset();
  auto led = second.get();
  REQUIRE(led);
  CHECK((*led)->epoch() == 2);
}

TEST_CASE("the head that leads is told where nodes would join those that stand by", "[postgres]") {
  postgres_database_of_test database;
  auto how = seat_for(database.url(), "a:1");
  how.joins_at = "10.0.0.1:7000";
  how.look_every = 5ms;
  auto leads = leader_seat::take(how);
  REQUIRE(leads);
  std::mutex mutex;
  std::condition_variable changed;
  lead_news news;
  (*leads)->watch([&](const lead_news& told) {
    const std::lock_guard lock(mutex);
    news = told;
    changed.notify_all();
  });
  const auto told = [&](const std::vector<std::string>& others) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, 20s, [&] { return news.sure && news.others == others; });
  };
  std::atomic<bool> ended{false};
  auto second = std::async(std::launch::async, [&] {
    auto waits = seat_for(database.url(), "b:2");
    waits.joins_at = "10.0.0.2:7000";
    waits.pause = [&](auto length) {
      store_world::wait_for(length);
      return !ended;
    };
    return leader_seat::take(std::move(waits)).has_value();
  });
  CHECK(told({"10.0.0.2:7000"}));
  ended = true;
  CHECK_FALSE(second.get());
  CHECK(told({}));  // it said that it goes
  (*leads)->watch(nullptr);
}

TEST_CASE("a head whose database falls silent is not sure of its lead any more", "[postgres]") {
  postgres_database_of_test database;
  auto how = seat_for(database.url(), "a:1");
  how.look_every = 5ms;
  how.silent_max = 300ms;
  auto leads = leader_seat::take(how);
  REQUIRE(leads);
  std::mutex mutex;
  std::condition_variable changed;
  bool sure = true;
  (*leads)->watch([&](const lead_news& told) {
    const std::lock_guard lock(mutex);
    sure = told.sure;
    changed.notify_all();
  });
  const auto becomes = [&](bool wanted) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, 20s, [&] { return sure == wanted; });
  };
  auto blocks = postgres_connection::open(database.url(), 0ms);
  REQUIRE(blocks);
  REQUIRE(
      (*blocks)->execute("SET idle_in_transaction_session_timeout = 0; BEGIN; LOCK TABLE "
                         "tandem_store IN ACCESS EXCLUSIVE MODE"));
  CHECK(becomes(false));
  REQUIRE((*blocks)->execute("ROLLBACK"));
  CHECK(becomes(true));
  (*leads)->watch(nullptr);
}

TEST_CASE("heads that start at once on an empty database make it once, and one of them leads",
          "[postgres]") {
  postgres_database_of_test database;
  std::vector<std::future<bool>> heads;
  std::atomic<int> looked{0};
  for (int i = 0; i < 6; ++i)
    heads.push_back(std::async(std::launch::async, [&] {
      auto how = seat_for(database.url(), "x:1");
      how.pause = [&looked](auto) {
        ++looked;
        return false;
      };
      auto seat = leader_seat::take(std::move(how));
      if (!seat) return false;
      while (looked < 5) std::this_thread::yield();
      postgres_database db({database.url(), (*seat)->epoch(), {}},
                           *postgres_connection::open(database.url(), 0ms));
      return prepare_schema(db).has_value();
    }));
  int led = 0;
  for (auto& head : heads) led += head.get() ? 1 : 0;
  CHECK(led == 1);
}

TEST_CASE("a head that lost the lead writes nothing more and hears who leads", "[postgres]") {
  store_world world;
  const auto job = world.job();
  std::atomic<int> told{0};
  postgres_database former({world.url(), 1, [&](const error&) { ++told; }},
                           *postgres_connection::open(world.url(), 0ms));
  auto write = [&] {
    return former.transaction(
        true, [&]() -> result<void> { return former.execute("UPDATE jobs SET seed = 99"); });
  };
  REQUIRE(write());
  ask_postgres(world.url(),
               "UPDATE tandem_store SET leader_epoch = 2, leader = 'b:2', led_since = now()");
  auto refused = write();
  REQUIRE(!refused);
  CHECK(refused.error().code == errc::conflict);
  CHECK(refused.error().detail.starts_with("another head leads since "));
  CHECK(refused.error().detail.find("b:2 (epoch 2, ours was 1)") != std::string::npos);
  CHECK(told == 1);
  CHECK(!world->set_model(job.id, "ft:late"));
  CHECK(!world->writable());
  CHECK(world->find_job(job.id)->fine_tuned_model.empty());
}

TEST_CASE("a head that is not sure of its lead neither reads nor writes, and says why",
          "[postgres]") {
  store_world world;
  const auto job = world.job();
  bool sure = true;
  postgres_database db({world.url(), 1, {}, [&] { return sure; }},
                       *postgres_connection::open(world.url(), 0ms));
  auto write = [&] {
    return db.transaction(
        true, [&]() -> result<void> { return db.execute("UPDATE jobs SET seed = seed + 1"); });
  };
  REQUIRE(write());
  sure = false;
  auto refused = write();
  REQUIRE(!refused);
  CHECK(refused.error().code == errc::unavailable);
  CHECK(refused.error().param == lead_unsure);
  sure = true;
  REQUIRE(write());
  CHECK(world->find_job(job.id)->seed == job.seed + 2);
}

TEST_CASE("nothing may be written beside a database that does not answer", "[postgres]") {
  store_world world;
  REQUIRE(world->writable());
  auto blocks = postgres_connection::open(world.url(), 0ms);
  REQUIRE(blocks);
  REQUIRE(
      (*blocks)->execute("SET idle_in_transaction_session_timeout = 0; BEGIN; LOCK TABLE "
                         "tandem_store IN ACCESS EXCLUSIVE MODE"));
  const auto refused = world->writable();
  REQUIRE(!refused);
  CHECK(refused.error().code == errc::unavailable);
  CHECK(refused.error().param == lead_unsure);
  REQUIRE((*blocks)->execute("ROLLBACK"));
  while (!world->writable()) {
  }
}

TEST_CASE("who takes the lead waits for a write that is under way", "[postgres]") {
  store_world world;
  const auto job = world.job();
  postgres_database leading({world.url(), 1, {}}, *postgres_connection::open(world.url(), 0ms));
  std::future<std::string> taken;
  auto written = leading.transaction(true, [&]() -> result<void> {
    taken = std::async(std::launch::async, [&] {
      return ask_postgres(world.url(),
                          "UPDATE tandem_store SET leader_epoch = 2 RETURNING "
                          "(SELECT seed FROM jobs LIMIT 1)");
    });
    // Until it waits for our row.
    while (ask_postgres(world.url(),
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                        "AND wait_event_type = 'Lock'") == "0") {
    }
    return leading.execute("UPDATE jobs SET seed = 99");
  });
  CHECK(written);
  taken.get();
  CHECK(world->find_job(job.id)->seed == 99);
}

TEST_CASE("sessions that are cut are opened again: reads and writes go on, and so does the lead",
          "[postgres]") {
  store_world world;
  const auto job = world.job();
  for (int i = 0; i < 5; ++i) {
    cut_all(world.url());
    REQUIRE(world->find_job(job.id));
    REQUIRE(world->add_event({"", job.id, 0, 0, "info", "message", std::to_string(i), "null"}));
  }
  CHECK(world->events_since(job.id, 0, 100)->size() == 6);
}

TEST_CASE("a session that is cut within a transaction: its work runs once more, whole",
          "[postgres]") {
  store_world world;
  const auto job = world.job();
  postgres_database db({world.url(), 1, {}}, *postgres_connection::open(world.url(), 0ms));
  int runs = 0;
  auto done = db.transaction(true, [&]() -> result<void> {
    if (auto up = db.execute("UPDATE jobs SET seed = seed + 1"); !up) return up;
    if (++runs == 1) cut_all(world.url());
    return db.execute("UPDATE jobs SET step = step + 1");
  });
  REQUIRE(done);
  CHECK(runs == 2);
  CHECK(world->find_job(job.id)->seed == job.seed + 1);
  CHECK(world->find_job(job.id)->step == 1);
}

TEST_CASE("cut before its end is kept, a change is reported as not kept, or is there",
          "[postgres]") {
  store_world world;
  const auto job = world.job();
  postgres_database db({world.url(), 1, {}}, *postgres_connection::open(world.url(), 0ms));
  auto done = db.transaction(true, [&]() -> result<void> {
    auto up = db.execute("UPDATE jobs SET seed = 99");
    cut_all(world.url());
    return up;
  });
  REQUIRE(!done);
  CHECK(done.error().code == errc::unavailable);
  CHECK(done.error().detail.find("nothing of this change was kept") != std::string::npos);
  CHECK(world->find_job(job.id)->seed == job.seed);
}

TEST_CASE("a statement that takes too long ends, and the session goes on", "[postgres]") {
  postgres_database_of_test database;
  auto session = postgres_connection::open(database.url(), 0ms);
  REQUIRE(session);
  REQUIRE((*session)->execute("SET statement_timeout = 50"));
  auto slow = (*session)->execute("SELECT count(*) FROM generate_series(1, 1000000000)");
  REQUIRE(!slow);
  CHECK(slow.error().code == errc::timed_out);
  CHECK((*session)->execute("SELECT 1"));
}

TEST_CASE("a head that says nothing for too long loses its session, and with it the lead",
          "[postgres]") {
  postgres_database_of_test database;
  auto how = seat_for(database.url(), "frozen:1");
  how.silent_max = 1000ms;
  how.look_every = 1h;  // as if it were frozen
  std::promise<error> lost;
  how.lost = [&](const error& why) { lost.set_value(why); };
  auto frozen = leader_seat::take(std::move(how));
  REQUIRE(frozen);
  auto next = seat_for(database.url(), "next:1");
  next.pause = [](auto length) {
    store_world::wait_for(length);
    return true;
  };
  auto led = leader_seat::take(std::move(next));
  REQUIRE(led);
  CHECK((*led)->epoch() == 2);
  (*frozen)->call_it("awake:1");  // it wakes up
  CHECK(lost.get_future().get().detail.find("next:1 (epoch 2, ours was 1)") != std::string::npos);
}
