// POST /v1/chat/completions, streamed.
#include "tests/support/gateway_world.hpp"

using namespace tandem;
using namespace tandem::test;
using serve::finish_reason;

namespace {

std::string whole_text(const std::vector<std::string>& stream) {
  std::string text;
  for (const std::string& frame : stream) {
    if (frame == "[DONE]") continue;
    const auto chunk = json(frame);
    for (const auto& choice : *at(chunk, "choices").if_array())
      if (const auto* content = at(choice, "delta").find("content")) text += *content->if_string();
  }
  return text;
}

}  // namespace

TEST_CASE("a chat stream is role, content, one finish with an empty delta, DONE") {
  gateway_world world;
  const auto to = world.chat(R"(,"stream":true)");
  CHECK(to->status == 0);
  world.engine->says(0, "Hel");
  CHECK(to->status == 200);
  CHECK(to->content_type.rfind("text/event-stream", 0) == 0);
  CHECK(to->header("cache-control") == "no-cache");
  world.engine->says(0, "lo", finish_reason::length);
  REQUIRE(to->ended);
  const auto stream = frames(to->body);
  REQUIRE(stream.size() == 5);
  CHECK(at(json(stream[0]), "choices.0.delta").to_json() == R"({"role":"assistant","content":""})");
  CHECK(at(json(stream[1]), "choices.0.delta").to_json() == R"({"content":"Hel"})");
  CHECK(at(json(stream[2]), "choices.0.delta").to_json() == R"({"content":"lo"})");
  CHECK(at(json(stream[3]), "choices.0.delta").to_json() == "{}");
  CHECK(text_at(json(stream[3]), "choices.0.finish_reason") == "length");
  CHECK(stream[4] == "[DONE]");
  for (std::size_t i = 0; i < 4; ++i) {
    const auto chunk = json(stream[i]);
    CHECK(text_at(chunk, "object") == "chat.completion.chunk");
    CHECK(text_at(chunk, "id") == text_at(json(stream[0]), "id"));
    CHECK(number_at(chunk, "created") == number_at(json(stream[0]), "created"));
    CHECK(text_at(chunk, "model") == "bytes");
    CHECK(chunk.find("usage") == nullptr);
    if (i < 3) CHECK(at(chunk, "choices.0.finish_reason").is_null());
  }
  CHECK(number_at(json(stream[3]), "tandem.weights_version") == 7);
}

TEST_CASE("include_usage adds one last chunk without choices; the others say null") {
  gateway_world world;
  const auto to = world.chat(R"(,"stream":true,"stream_options":{"include_usage":true})");
  world.engine->says(0, "abc", finish_reason::stop);
  const auto stream = frames(to->body);
  REQUIRE(stream.size() == 5);
  for (std::size_t i = 0; i < 3; ++i) CHECK(at(json(stream[i]), "usage").is_null());
  const auto last = json(stream[3]);
  CHECK(at(last, "choices").if_array()->empty());
  CHECK(number_at(last, "usage.completion_tokens") == 3);
  CHECK(number_at(last, "tandem.weights_version") == 7);
  CHECK(stream[4] == "[DONE]");
}

TEST_CASE("continuous_usage_stats tells the usage so far in every chunk") {
  gateway_world world;
  const auto to = world.chat(
      R"(,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true})");
  world.engine->says(0, "ab");
  world.engine->says(0, "c", finish_reason::stop);
  const auto stream = frames(to->body);
  CHECK(number_at(json(stream[1]), "usage.completion_tokens") == 2);
  CHECK(number_at(json(stream[2]), "usage.completion_tokens") == 3);
}

TEST_CASE("choices of a stream each have their own role and finish chunk") {
  gateway_world world;
  const auto to = world.chat(R"(,"stream":true,"n":2)");
  world.engine->says(0, "b", finish_reason::none, 1);
  world.engine->says(0, "a", finish_reason::stop, 0);
  CHECK_FALSE(to->ended);
  // A choice that has ended says so at once, not with the last one.
  CHECK_THAT(to->body, Catch::Contains(R"("finish_reason":"stop")"));
  world.engine->says(0, "bb", finish_reason::stop, 1);
  int roles[2] = {0, 0};
  int finishes[2] = {0, 0};
  for (const auto& frame : frames(to->body)) {
    if (frame == "[DONE]") continue;
    const auto chunk = json(frame);
    const auto index = number_at(chunk, "choices.0.index");
    roles[index] += at(chunk, "choices.0.delta").find("role") != nullptr ? 1 : 0;
    finishes[index] += at(chunk, "choices.0.finish_reason").is_null() ? 0 : 1;
  }
  CHECK(roles[0] == 1);
  CHECK(roles[1] == 1);
  CHECK(finishes[0] == 1);
  CHECK(finishes[1] == 1);
}

TEST_CASE("a step without certain text sends no chunk") {
  gateway_world world;
  const auto to = world.chat(R"(,"stream":true)");
  world.engine->says(0, "a");
  const auto before = to->body;
  auto half = world.engine->told(0, "");
  half.tokens = {0xE2};
  world.engine->send(0, std::move(half));
  CHECK(to->body == before);
}

TEST_CASE("logprobs of a stream come with the chunk of their tokens") {
  gateway_world world;
  const auto to = world.chat(R"(,"stream":true,"logprobs":true,"top_logprobs":1)");
  auto delta = world.engine->told(0, "A", finish_reason::stop);
  delta.logprobs.push_back({'A', -0.5F, 1, {{'A', -0.5F}}});
  world.engine->send(0, std::move(delta));
  const auto stream = frames(to->body);
  CHECK(at(json(stream[0]), "choices.0.logprobs").is_null());
  CHECK(text_at(json(stream[1]), "choices.0.logprobs.content.0.top_logprobs.0.token") == "A");
  CHECK(at(json(stream[2]), "choices.0.logprobs").is_null());
}

TEST_CASE("text of a stream survives every kind of character") {
  gateway_world world;
  const auto to = world.chat(R"(,"stream":true)");
  const std::string nasty = "a\n\n\"b\"\\ \r\x02 data: [DONE]\n\n \xF0\x9F\xA6\x8A";
  world.engine->says(0, nasty, finish_reason::stop);
  CHECK(whole_text(frames(to->body)) == nasty);
}

TEST_CASE("a comment is the heartbeat of a stream that has not begun to speak") {
  gateway_world world;
  const auto to = world.chat(R"(,"stream":true)");
  CHECK(to->heartbeat_bytes.front() == ':');
  CHECK(to->heartbeat_bytes.substr(to->heartbeat_bytes.size() - 2) == "\n\n");
  to->beat();
  world.engine->says(0, "late", finish_reason::stop);
  CHECK(to->content_type.rfind("text/event-stream", 0) == 0);
  CHECK(whole_text(frames(to->body)) == "late");
}

TEST_CASE("a stream that is refused at once has the refusal's own status") {
  gateway_world world;
  world.engine->refusal = error{errc::overloaded, "1024 of 1024 requests are queued", ""};
  const auto to = world.chat(R"(,"stream":true)");
  check_refused(*to, 429, "", "1024 of 1024");
  CHECK(to->header("retry-after") == "1");
  CHECK(to->header("retry-after-ms") == "1000");
}

TEST_CASE("a failure inside a stream is a frame with an error, and the end") {
  gateway_world world;
  const auto to = world.chat(R"(,"stream":true)");
  world.engine->says(0, "half");
  world.engine->fail(0, {errc::internal, "the device was lost", ""});
  REQUIRE(to->ended);
  const auto stream = frames(to->body);
  CHECK(text_at(json(stream.back()), "error.message") == "the device was lost");
  CHECK(to->status == 200);
}

TEST_CASE("stream_options without stream are refused") {
  gateway_world world;
  check_refused(*world.chat(R"(,"stream_options":{"include_usage":true})"), 400, "stream_options",
                "'stream' is true");
}

TEST_CASE("leaving a stream cancels it, and what was on its way is dropped in silence") {
  gateway_world world;
  const auto to = world.chat(R"(,"stream":true)");
  world.engine->says(0, "a");
  to->leave();
  CHECK(world.engine->cancelled == std::vector<serve::request_id>{1});
  world.engine->says(0, "b", finish_reason::stop);
}
