// An answer between the thread that makes it and the session that writes it.
#include "gateway/answer.hpp"

#include <catch2/catch.hpp>

using namespace tandem::gateway;
using Catch::Contains;

namespace {

struct waking {
  int count = 0;
  std::shared_ptr<answer> made = std::make_shared<answer>(answer_terms{}, [this] { ++count; });
};

}  // namespace

TEST_CASE("a session that sleeps is woken once for many chunks") {
  waking woken;
  woken.made->begin(200, "text/plain", {});
  CHECK(woken.count == 0);  // it has not slept yet
  std::string out;
  woken.made->take(out);
  woken.made->write("a");
  woken.made->write("b");
  CHECK(woken.count == 1);
  out.clear();
  CHECK(woken.made->take(out).bytes == 12);
  CHECK(out == "1\r\na\r\n1\r\nb\r\n");
}

TEST_CASE("a session that takes nothing for its client's sake still learns of a cut") {
  waking woken;
  woken.made->begin(200, "text/plain", {});
  std::string out;
  woken.made->take(out);
  woken.made->write("a");
  CHECK(woken.count == 1);
  woken.made->write(std::string(answer::unread_bytes_max, 'x'));
  CHECK(woken.count == 2);
  CHECK(woken.made->is_cut());
  CHECK(woken.made->take(out).cut);
}

TEST_CASE("an answer that is let go wakes nobody") {
  waking woken;
  woken.made->send({});
  std::string out;
  CHECK(woken.made->take(out).ended);
  woken.made->detach();
  woken.made->write("more");
  woken.made->heartbeat("\n", "text/plain");
  CHECK(woken.count == 0);
}

TEST_CASE("an empty chunk is not taken for the end") {
  waking woken;
  woken.made->begin(200, "text/plain", {});
  std::string out;
  woken.made->take(out);
  out.clear();
  woken.made->write("");
  CHECK(woken.made->take(out).bytes == 0);
  woken.made->end();
  CHECK(woken.made->take(out).ended);
  CHECK(out == "0\r\n\r\n");
}
