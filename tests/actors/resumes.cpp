// Requests that outlive their serve coordinator: what the client gets is what it would have got.
#include "tests/support/actor_world.hpp"
#include "tests/support/byte_model.hpp"

#include <catch2/catch.hpp>

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using namespace tandem;
using namespace tandem::test;
using namespace std::chrono_literals;
using serve::finish_reason;

namespace {

struct heard {
  std::string text;
  std::vector<serve::token_id> tokens;
  std::vector<serve::token_id> scored;
  finish_reason finish = finish_reason::none;
  std::optional<error> failure;
  std::optional<std::string> stop_string;
  int completion_tokens = 0;
  int finishes = 0;
  bool operator==(const heard&) const = default;
};

actors::serve_options with_text() {
  actors::serve_options options;
  options.model = "fake";
  options.tokenizer = byte_model()->tokenizer;
  return options;
}

fake_device_script words() {
  fake_device_script script;
  script.vocabulary = 256;  // bytes, most of which are no characters of their own
  return script;
}

class resuming_world : public serving_world {
 public:
  explicit resuming_world(std::vector<std::string> devices = {"cpu:0"})
      : serving_world(std::move(devices), words(), with_text()) {}

  void submit(serve::generation_request request) {
    ++board->requests_inside;
    caf::anon_send(gateway, actors::submit{std::move(request), [this](serve::generation_delta d) {
                                             hear(std::move(d));
                                           }});
  }
  // Until the first choice of this request has so many tokens, or all is said.
  void run_until(serve::request_id id, std::size_t tokens) {
    while (clients[{id, 0}].tokens.size() < tokens && clients[{id, 0}].finishes == 0)
      if (!scheduler().try_run_once()) return;
  }
  void lose_server() {
    caf::anon_send_exit(serve_coordinator, caf::exit_reason::kill);
    settle();
  }
  void next_server(const actors::coordinator_actor& lender) {
    serve_coordinator = house(system().spawn(actors::serve_coordinator, with_text(), lender));
    caf::anon_send(gateway, actors::serve_coordinator_changed{serve_coordinator});
    settle();
  }

  std::map<std::pair<serve::request_id, int>, heard> clients;

 private:
  void hear(serve::generation_delta d) {
    auto& client = clients[{d.id, d.choice}];
    client.text += d.text;
    client.tokens.insert(client.tokens.end(), d.tokens.begin(), d.tokens.end());
    for (const auto& one : d.logprobs) client.scored.push_back(one.id);
    client.completion_tokens = d.completion_tokens;
    if (d.finish == finish_reason::none) return;
    client.finish = d.finish;
    client.failure = d.failure;
    client.stop_string = d.stop_string;
    ++client.finishes;
  }
};

heard undisturbed(const serve::generation_request& request) {
  resuming_world world;
  world.submit(request);
  world.settle();
  return world.clients[{request.id, 0}];
}

heard cut_after(std::size_t tokens, const serve::generation_request& request, int choice = 0) {
  resuming_world world;
  world.submit(request);
  world.run_until(request.id, tokens);
  world.lose_server();
  world.next_server(world.coordinator);
  world.pass(200ms);
  CHECK(world.board->requests_inside == 0);
  return world.clients[{request.id, choice}];
}

}  // namespace

TEST_CASE("a request goes on where its serve coordinator was lost, wherever that was") {
  auto request = request_of(1, {5, 6, 7}, 20);
  request.sampling.logprobs = 0;
  const auto expected = undisturbed(request);
  REQUIRE(expected.tokens.size() == 20);
  REQUIRE(expected.scored == expected.tokens);
  for (std::size_t cut = 0; cut <= 20; ++cut) {
    CAPTURE(cut);
    CHECK(cut_after(cut, request) == expected);
  }
}

TEST_CASE("each choice of a request goes on, with a prompt of many blocks") {
  std::vector<serve::token_id> prompt(100);
  for (std::size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<serve::token_id>(i);
  auto request = request_of(1, prompt, 30);
  const auto expected = undisturbed(request);
  request.choices = 2;
  for (const int choice : {0, 1}) CHECK(cut_after(13, request, choice) == expected);
}

TEST_CASE("a stop string that the loss cuts in two still ends the text") {
  auto request = request_of(1, {1, 2, 3}, 60);
  const auto free = undisturbed(request);
  // Two whole characters in a row.
  std::size_t at = 8;
  while (free.tokens[at] >= 128 || free.tokens[at + 1] >= 128) ++at;
  request.stops.stop = {
      std::string{static_cast<char>(free.tokens[at]), static_cast<char>(free.tokens[at + 1])}};
  const auto expected = undisturbed(request);
  REQUIRE(expected.stop_string == request.stops.stop.front());
  CHECK(cut_after(at, request) == expected);
  CHECK(cut_after(at + 1, request) == expected);
  request.stops.min_tokens = static_cast<int>(at) + 4;
  const auto later = undisturbed(request);
  REQUIRE(later.tokens.size() > at + 2);
  CHECK(cut_after(at + 1, request) == later);
}

TEST_CASE("many requests wait together, and those that come meanwhile wait with them") {
  resuming_world world({"cpu:0", "cpu:1"});
  for (serve::request_id id = 1; id <= 20; ++id)
    world.submit(request_of(id, {static_cast<serve::token_id>(id), 9}, 20));
  world.run_until(1, 5);
  world.lose_server();
  CHECK(world.board->is_lost);
  world.submit(request_of(21, {21, 9}, 20));
  world.pass(5s);
  world.next_server(world.coordinator);
  world.pass(500ms);
  CHECK_FALSE(world.board->is_lost);
  for (serve::request_id id = 1; id <= 21; ++id) {
    CAPTURE(id);
    const auto& client = world.clients[{id, 0}];
    CHECK(client.tokens == expected_tokens({static_cast<serve::token_id>(id), 9}, 20, 256));
    CHECK(client.finishes == 1);
  }
  CHECK(world.board->requests_inside == 0);
}

TEST_CASE("a next serve coordinator that has no device yet is waited for") {
  resuming_world world;
  world.submit(request_of(1, {5, 6}, 20));
  world.run_until(1, 5);
  world.lose_server();
  const auto lends_nothing =
      world.house(world.system().spawn(actors::coordinator, actors::coordinator_options{}));
  world.next_server(lends_nothing);
  world.pass(2s);
  CHECK(world.clients[{1, 0}].finishes == 0);
  world.next_server(world.coordinator);
  world.pass(500ms);
  CHECK(world.clients[{1, 0}].tokens == expected_tokens({5, 6}, 20, 256));
}

TEST_CASE("when nobody goes on with it in time, a request ends once, with what to do") {
  resuming_world world;
  world.submit(request_of(1, {5, 6}, 20));
  auto hurried = request_of(2, {5, 7}, 20);
  const auto in_a_second = world.scheduler().clock().now().time_since_epoch() + 1s;
  hurried.deadline = std::chrono::nanoseconds(in_a_second).count();
  world.submit(hurried);
  world.submit(request_of(3, {5, 8}, 20));
  world.run_until(1, 5);
  world.lose_server();
  caf::anon_send(world.gateway, actors::withdraw{3});
  world.pass(1200ms);
  REQUIRE(world.clients[{2, 0}].finishes == 1);
  CHECK(world.clients[{2, 0}].failure->code == errc::timed_out);
  world.pass(28s);
  CHECK(world.clients[{1, 0}].finishes == 0);
  world.pass(2s);
  REQUIRE(world.clients[{1, 0}].finishes == 1);
  CHECK(world.clients[{1, 0}].failure->code == errc::unavailable);
  CHECK(world.clients[{1, 0}].failure->detail.find("send it again") != std::string::npos);
  CHECK(world.clients[{3, 0}].finishes == 0);
  CHECK(world.board->requests_inside == 0);
}

TEST_CASE("a gateway that is gone takes its requests along") {
  resuming_world world;
  world.submit(request_of(1, {5, 6}, 200));
  auto board = std::make_shared<actors::gateway_board>();
  const auto other = world.system().spawn(actors::gateway, world.serve_coordinator, board,
                                          actors::coordinator_actor());
  caf::anon_send(other, actors::submit{request_of(2, {5, 7}, 200), [](serve::generation_delta) {}});
  world.run_until(1, 5);
  caf::anon_send_exit(other, caf::exit_reason::kill);
  world.run_until(1, 20);
  const auto report = world.board->newest();
  REQUIRE(report);
  world.settle();
  const auto counts = world.board->newest()->lanes.front().counts;
  CHECK(counts.running == 0);
  CHECK(counts.tokens_generated < 300);
  CHECK(counts.blocks_free == counts.blocks_total);
  CHECK(world.clients[{1, 0}].tokens.size() == 200);
}
