#include "gateway/command/event_stream.hpp"

#include <catch2/catch.hpp>

#include <vector>

namespace {

std::vector<std::string> events_of(const std::vector<std::string>& pieces) {
  std::vector<std::string> data;
  tandem::gateway::command::event_stream events;
  for (const std::string& piece : pieces) {
    events.feed(piece, [&](std::string_view one) {
      data.emplace_back(one);
      return true;
    });
  }
  return data;
}

TEST_CASE("events are the same however the bytes are cut") {
  const std::string bytes =
      ": hello\r\ndata: {\"a\": 1}\r\n\r\ndata:x\ndata: y\n\n\n: beat\n\ndata: z\n\n";
  const std::vector<std::string> expected = {"{\"a\": 1}", "x\ny", "z"};
  CHECK(events_of({bytes}) == expected);
  std::vector<std::string> letters;
  for (const char c : bytes) letters.emplace_back(1, c);
  CHECK(events_of(letters) == expected);
}

TEST_CASE("an event without its blank line is not given") {
  CHECK(events_of({"data: whole\n\ndata: half\n"}) == std::vector<std::string>{"whole"});
}

TEST_CASE("other fields are passed over") {
  CHECK(events_of({"event: e\nid: 4\nretry: 1\ndata: d\n\nevent: only\n\n"}) ==
        std::vector<std::string>{"d"});
}

}  // namespace
