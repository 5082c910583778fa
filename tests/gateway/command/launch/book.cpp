#include "gateway/command/launch/book.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

namespace {

using namespace tandem::gateway::command;
using namespace std::chrono_literals;
using kind = launch_order::kind;
using state = launched_node::state;
using orders = std::vector<launch_order>;

struct cluster {
  launch_book book{{"head", "node2", "node3"}, true, 1s};
  launch_time now{1000s};

  orders due() { return book.due(now); }
  orders due_after(std::chrono::milliseconds wait) {
    now += wait;
    return due();
  }
  void heard(std::size_t node, std::string_view line) { book.heard(node, line, now); }
  void ended(std::size_t node, int status, const std::string& words = "it ended") {
    book.ended(node, {status, words}, now);
  }
  void head_comes_up() {
    due();
    heard(0, "cluster 127.0.0.1:7000");
    heard(0, "ready http://127.0.0.1:8000 in 9 ms");
  }
  void all_come_up(int count) {
    book.want(count);
    head_comes_up();
    for (const auto& order : due()) heard(order.node, "joined 127.0.0.1:7000 as x (y) in 3 ms");
  }
  bool news_have(std::string_view words) {
    const auto news = book.take_news();
    return std::ranges::any_of(
        news, [&](const auto& line) { return line.find(words) != std::string::npos; });
  }
};

TEST_CASE("the head starts first, the others once it says where they join") {
  cluster c;
  c.book.want(3);
  CHECK(c.due() == orders{{kind::start, 0}});
  CHECK(c.due().empty());
  c.heard(0, "cluster 127.0.0.1:7000");
  CHECK(c.due().empty());
  c.heard(0, "ready http://127.0.0.1:8000 in 9 ms");
  CHECK(c.book.cluster_address() == "127.0.0.1:7000");
  CHECK(c.book.http_address() == "http://127.0.0.1:8000");
  CHECK(c.due() == orders{{kind::start, 1}, {kind::start, 2}});
  CHECK_FALSE(c.book.settled());
  c.heard(1, "joined 127.0.0.1:7000 as node2 (127.0.0.1:9) in 3 ms");
  c.heard(2, "joined 127.0.0.1:7000 as node3 (127.0.0.1:9) in 3 ms");
  CHECK(c.book.settled());
  CHECK(c.book.up() == 3);
}

TEST_CASE("a node that dies starts again with growing pauses, and stays down after five times") {
  cluster c;
  c.all_come_up(2);
  auto pause = 100ms;
  for (int times = 1; times <= launch_book::restarts_max; ++times, pause *= 2) {
    c.ended(1, -1, "killed by signal 9 (Killed)");
    CHECK(c.news_have("node2: killed by signal 9 (Killed); starting it again in"));
    CHECK(c.due_after(pause - 1ms).empty());
    CHECK(c.due_after(1ms) == orders{{kind::start, 1}});
  }
  c.ended(1, -1, "killed by signal 9 (Killed)");
  CHECK(c.news_have("stays down: died 6 times in a row"));
  CHECK(c.due_after(1h) == orders{{kind::start, 2}});  // another takes its place
}

TEST_CASE("time forgives what was before") {
  cluster c;
  c.all_come_up(2);
  for (int times = 0; times < 20; ++times) {
    c.ended(1, -1);
    CHECK(c.due_after(100ms) == orders{{kind::start, 1}});
    c.now += 6s;
  }
}

TEST_CASE("a node that was never let in stays down with its own words") {
  cluster c;
  c.book.want(2);
  c.head_comes_up();
  c.due();
  c.heard(1, "tandem: cannot join 127.0.0.1:7000: another build");
  c.ended(1, 1);
  CHECK(c.news_have("node2: stays down: cannot join 127.0.0.1:7000: another build"));
  CHECK(c.book.nodes()[1].now == state::down);
  CHECK(c.due() == orders{{kind::start, 2}});
  SECTION("until the next order") {
    c.heard(2, "joined 127.0.0.1:7000 as node3 (y) in 3 ms");
    c.book.want(3);
    CHECK(c.due() == orders{{kind::start, 1}});
  }
}

TEST_CASE("without spares a node that stays down leaves a place empty") {
  cluster c;
  c.book = launch_book{{"head", "node2", "node3"}, false, 1s};
  c.book.want(2);
  c.head_comes_up();
  c.due();
  c.ended(1, 1);
  CHECK(c.due_after(1h).empty());
  CHECK(c.book.settled());
  c.book.want(3);
  CHECK(c.due() == orders{{kind::start, 1}, {kind::start, 2}});
}

TEST_CASE("a head that never comes up ends the cluster with its words") {
  cluster c;
  c.book.want(3);
  c.due();
  c.heard(0, "tandem: no model");
  c.ended(0, 1);
  CHECK(c.due().empty());
  CHECK(c.book.over());
  CHECK(c.book.nodes()[0].why == "no model");
}

TEST_CASE("a head that dies later starts again, and the others stay") {
  cluster c;
  c.all_come_up(2);
  c.ended(0, 3);
  c.heard(1, "lost 127.0.0.1:7000: trying again");
  CHECK(c.due_after(100ms) == orders{{kind::start, 0}});
  c.heard(0, "ready http://127.0.0.1:8000 in 9 ms");
  c.heard(1, "joined 127.0.0.1:7000 as node2 (y) in 3 ms");
  CHECK(c.book.settled());
  CHECK(c.book.up() == 2);
}

TEST_CASE("shrinking asks the last ones to end, and kills who does not") {
  cluster c;
  c.all_come_up(3);
  c.book.want(2);
  CHECK(c.due() == orders{{kind::ask_to_end, 2}});
  CHECK_FALSE(c.book.settled());
  CHECK(c.due_after(11s).empty());
  CHECK(c.due_after(1s) == orders{{kind::kill, 2}});
  CHECK(c.due_after(1h).empty());
  c.ended(2, -1);
  CHECK(c.book.settled());
  CHECK(c.due().empty());
}

TEST_CASE("when all end the head drains first, while the others compute") {
  cluster c;
  c.all_come_up(3);
  c.book.want(0);
  CHECK(c.due() == orders{{kind::ask_to_end, 0}});
  c.ended(0, 0);
  CHECK(c.due() == orders{{kind::ask_to_end, 1}, {kind::ask_to_end, 2}});
  c.ended(1, 0);
  CHECK_FALSE(c.book.over());
  c.ended(2, 0);
  CHECK(c.book.over());
}

TEST_CASE("in a hurry all are killed at once") {
  cluster c;
  c.all_come_up(2);
  c.book.want(0);
  c.due();
  c.book.hurry(c.now);
  CHECK(c.due() == orders{{kind::kill, 0}, {kind::kill, 1}});
}

TEST_CASE("a node drained by hand stays away until the next order, and others stay") {
  cluster c;
  c.all_come_up(3);
  c.heard(1, "left 127.0.0.1:7000: its devices are idle");
  c.ended(1, 0);
  CHECK(c.book.wanted() == 2);
  CHECK(c.due_after(1h).empty());
  CHECK(c.book.settled());
  c.book.want(3);
  CHECK(c.due() == orders{{kind::start, 1}});
}

TEST_CASE("a head that died while no launcher was there starts again where it was") {
  cluster c;
  c.book.knew("127.0.0.1:7000", "http://127.0.0.1:8000");
  c.book.found(1, c.now);
  c.book.want(2);
  CHECK(c.due() == orders{{kind::start, 0}});
  CHECK(c.book.cluster_address() == "127.0.0.1:7000");
  c.ended(0, 1);
  CHECK(c.due_after(100ms) == orders{{kind::start, 0}});
}

TEST_CASE("who runs already is taken over and not started again") {
  cluster c;
  c.book.found(0, c.now);
  c.book.found(2, c.now);
  c.book.want(2);
  CHECK(c.due().empty());
  c.heard(0, "cluster 127.0.0.1:7000");
  c.heard(0, "ready http://127.0.0.1:8000 in 9 ms");
  c.heard(2, "joined 127.0.0.1:7000 as node3 (y) in 3 ms");
  CHECK(c.due().empty());
  CHECK(c.book.settled());
}

}  // namespace
