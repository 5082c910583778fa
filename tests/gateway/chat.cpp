// POST /v1/chat/completions, answered whole.
#include "tests/support/gateway_world.hpp"

using namespace tandem;
using namespace tandem::test;
using serve::finish_reason;

TEST_CASE("a chat answer has every field that OpenAI's clients require") {
  gateway_world world;
  world.engine->cached_tokens = 5;
  const auto to = world.chat();
  world.engine->says(0, "Hello");
  CHECK(to->status == 0);
  world.engine->says(0, " you", finish_reason::stop);
  REQUIRE(to->ended);
  CHECK(to->status == 200);
  CHECK(to->content_type == "application/json");
  const auto body = json(to->body);
  CHECK(text_at(body, "id").rfind("chatcmpl-", 0) == 0);
  CHECK(text_at(body, "object") == "chat.completion");
  CHECK(number_at(body, "created") > 1'700'000'000);
  CHECK(text_at(body, "model") == "bytes");
  CHECK_THAT(text_at(body, "system_fingerprint"), Catch::Matches("tandem-[0-9.]+-w7"));
  CHECK(number_at(body, "choices.0.index") == 0);
  CHECK(text_at(body, "choices.0.message.role") == "assistant");
  CHECK(text_at(body, "choices.0.message.content") == "Hello you");
  CHECK(at(body, "choices.0.message.refusal").is_null());
  CHECK(at(body, "choices.0.logprobs").is_null());
  CHECK(text_at(body, "choices.0.finish_reason") == "stop");
  const auto prompt = static_cast<std::int64_t>(world.asked().prompt.size());
  CHECK(number_at(body, "usage.prompt_tokens") == prompt);
  CHECK(number_at(body, "usage.completion_tokens") == 9);
  CHECK(number_at(body, "usage.total_tokens") == prompt + 9);
  CHECK(number_at(body, "usage.prompt_tokens_details.cached_tokens") == 5);
  CHECK(number_at(body, "usage.completion_tokens_details.reasoning_tokens") == 0);
  CHECK(number_at(body, "tandem.weights_version") == 7);
  CHECK(text_at(body, "tandem.devices.0") == "cpu:0-1");
  CHECK(*at(body, "tandem.queued_ms").if_double() == 1.5);
}

TEST_CASE("a completion that ran out of tokens says length") {
  gateway_world world;
  const auto to = world.chat(R"(,"max_tokens":3)");
  CHECK(world.asked().stops.max_tokens == 3);
  world.engine->says(0, "abc", finish_reason::length);
  CHECK(text_at(json(to->body), "choices.0.finish_reason") == "length");
}

TEST_CASE("without a limit a chat may use the rest of the context") {
  gateway_world world;
  world.chat();
  CHECK(world.asked().stops.max_tokens == 200 - static_cast<int>(world.asked().prompt.size()));
}

TEST_CASE("max_completion_tokens wins over max_tokens") {
  gateway_world world;
  world.chat(R"(,"max_tokens":3,"max_completion_tokens":5)");
  CHECK(world.asked().stops.max_tokens == 5);
}

TEST_CASE("every choice of n comes back under its index, and all count as completion tokens") {
  gateway_world world;
  const auto to = world.chat(R"(,"n":3)");
  REQUIRE(world.engine->requests.size() == 1);
  CHECK(world.asked().choices == 3);
  world.engine->says(0, "cc", finish_reason::stop, 2);
  world.engine->says(0, "a", finish_reason::none, 0);
  world.engine->says(0, "b", finish_reason::length, 1);
  CHECK_FALSE(to->ended);
  world.engine->says(0, "", finish_reason::stop, 0);
  const auto body = json(to->body);
  CHECK(text_at(body, "choices.0.message.content") == "a");
  CHECK(text_at(body, "choices.1.message.content") == "b");
  CHECK(text_at(body, "choices.2.message.content") == "cc");
  CHECK(text_at(body, "choices.1.finish_reason") == "length");
  CHECK(number_at(body, "usage.completion_tokens") == 4);
}

TEST_CASE("text is escaped so that the body is always JSON") {
  gateway_world world;
  const auto to = world.chat();
  const std::string nasty = "\"quoted\" \\ back\nnew\ttab \x01\x1f \xE2\x80\xA8 \xF0\x9F\xA6\x8A";
  world.engine->says(0, nasty, finish_reason::stop);
  CHECK(text_at(json(to->body), "choices.0.message.content") == nasty);
}

TEST_CASE("logprobs of a chat are objects with bytes and as many alternatives as asked for") {
  gateway_world world;
  const auto to = world.chat(R"(,"logprobs":true,"top_logprobs":2)");
  CHECK(world.asked().sampling.logprobs == 2);
  auto delta = world.engine->told(0, "A", finish_reason::stop);
  delta.logprobs.push_back({'A', -0.25F, 1, {{'A', -0.25F}, {0xE2, -1.5F}}});
  world.engine->send(0, std::move(delta));
  const auto body = json(to->body);
  CHECK(text_at(body, "choices.0.logprobs.content.0.token") == "A");
  CHECK(*at(body, "choices.0.logprobs.content.0.logprob").if_double() == -0.25);
  CHECK(number_at(body, "choices.0.logprobs.content.0.bytes.0") == 'A');
  CHECK(at(body, "choices.0.logprobs.content.0.top_logprobs").if_array()->size() == 2);
  // Half a character has no text, so clients put it together from the bytes.
  CHECK(text_at(body, "choices.0.logprobs.content.0.top_logprobs.1.token") == "\xEF\xBF\xBD");
  CHECK(number_at(body, "choices.0.logprobs.content.0.top_logprobs.1.bytes.0") == 0xE2);
  CHECK(at(body, "choices.0.logprobs.refusal").is_null());
}

TEST_CASE("what has no probability is -9999, never an infinity") {
  gateway_world world;
  const auto to = world.chat(R"(,"logprobs":true)");
  auto delta = world.engine->told(0, "A", finish_reason::stop);
  delta.logprobs.push_back({'A', -std::numeric_limits<float>::infinity(), 259, {}});
  world.engine->send(0, std::move(delta));
  CHECK_THAT(to->body, Catch::Contains("\"logprob\":-9999.0,"));
  CHECK(at(json(to->body), "choices.0.logprobs.content.0.top_logprobs").if_array()->empty());
}

TEST_CASE("a chat tells its token ids when asked") {
  gateway_world world;
  const auto to = world.chat(R"(,"return_token_ids":true)");
  world.engine->says(0, "AB", finish_reason::stop);
  const auto body = json(to->body);
  CHECK(at(body, "choices.0.token_ids").to_json() == "[65,66]");
  CHECK(at(body, "prompt_token_ids").if_array()->size() == world.asked().prompt.size());
  CHECK(number_at(body, "prompt_token_ids.0") == 257);
}

TEST_CASE("prompt_logprobs are maps by token id, the first of them null") {
  gateway_world world;
  const auto to = world.chat(R"(,"prompt_logprobs":1)");
  CHECK(world.asked().sampling.prompt_logprobs == 1);
  auto delta = world.engine->told(0, "A", finish_reason::stop);
  delta.prompt_logprobs.push_back({'u', -2.0F, 3, {{'a', -0.5F}}});
  world.engine->send(0, std::move(delta));
  const auto body = json(to->body);
  CHECK(at(body, "prompt_logprobs.0").is_null());
  CHECK(number_at(body, "prompt_logprobs.1.117.rank") == 3);
  CHECK(text_at(body, "prompt_logprobs.1.97.decoded_token") == "a");
}

TEST_CASE("the stop string or token that ended a choice is named") {
  gateway_world world;
  const auto to = world.chat(R"(,"n":3,"stop":["END"],"stop_token_ids":[66])");
  CHECK(world.asked().stops.stop == std::vector<std::string>{"END"});
  CHECK(world.asked().stops.stop_token_ids == std::vector<serve::token_id>{66});
  CHECK(world.asked().stops.eos_ids == std::vector<serve::token_id>{258});
  auto by_string = world.engine->told(0, "a", finish_reason::stop, 0);
  by_string.stop_string = "END";
  world.engine->send(0, std::move(by_string));
  auto by_token = world.engine->told(0, "a", finish_reason::stop, 1);
  by_token.stop_token = 66;
  world.engine->send(0, std::move(by_token));
  auto by_end = world.engine->told(0, "a", finish_reason::stop, 2);
  by_end.stop_token = 258;
  world.engine->send(0, std::move(by_end));
  const auto body = json(to->body);
  CHECK(text_at(body, "choices.0.stop_reason") == "END");
  CHECK(number_at(body, "choices.1.stop_reason") == 66);
  CHECK(at(body, "choices.2.stop_reason").is_null());
}

TEST_CASE("a long wait for a whole answer is filled with white space before the JSON") {
  gateway_world world;
  const auto to = world.chat();
  CHECK(to->heartbeat_type == "application/json");
  to->beat();
  to->beat();
  world.engine->says(0, "late", finish_reason::stop);
  CHECK(to->body.rfind("  {", 0) == 0);
  CHECK(text_at(json(to->body), "choices.0.message.content") == "late");
}

TEST_CASE("a client that leaves cancels its request") {
  gateway_world world;
  const auto to = world.chat();
  world.engine->says(0, "Hel");
  CHECK(world.engine->cancelled.empty());
  to->leave();
  CHECK(world.engine->cancelled == std::vector<serve::request_id>{1});
}

TEST_CASE("a request carries its arrival and a deadline") {
  gateway_world world;
  world.chat();
  CHECK(world.asked().deadline - world.asked().arrived == 600'000'000'000);
}

TEST_CASE("the same seed is passed on, and without one every request draws its own") {
  gateway_world world;
  world.chat(R"(,"seed":-3)");
  world.chat();
  world.chat();
  CHECK(world.asked(0).sampling.seed == static_cast<std::uint64_t>(-3));
  CHECK(world.asked(1).sampling.seed != world.asked(2).sampling.seed);
}
