// POST /v1/completions.
#include "tests/support/gateway_world.hpp"

using namespace tandem;
using namespace tandem::test;
using serve::finish_reason;

namespace {

std::shared_ptr<fake_responder> with_prompt(gateway_world& world, const std::string& prompt,
                                            const std::string& more = {}) {
  return world.post("/v1/completions", R"({"model":"bytes","prompt":)" + prompt + more + "}");
}

void check_prompt_refused(const std::string& prompt, const std::string& param,
                          const std::string& part_of_message) {
  gateway_world world;
  check_refused(*with_prompt(world, prompt), 400, param, part_of_message);
  CHECK(world.engine->requests.empty());
}

}  // namespace

TEST_CASE("a completion has OpenAI's fields and ends after sixteen tokens by default") {
  gateway_world world;
  const auto to = world.complete();
  CHECK(world.asked().stops.max_tokens == 16);
  CHECK(world.asked().prompt == std::vector<serve::token_id>{256, 'H', 'i'});
  world.engine->says(0, " there", finish_reason::stop);
  const auto body = json(to->body);
  CHECK(text_at(body, "id").rfind("cmpl-", 0) == 0);
  CHECK(text_at(body, "object") == "text_completion");
  CHECK(text_at(body, "choices.0.text") == " there");
  CHECK(number_at(body, "choices.0.index") == 0);
  CHECK(at(body, "choices.0.logprobs").is_null());
  CHECK(text_at(body, "choices.0.finish_reason") == "stop");
  CHECK(number_at(body, "usage.prompt_tokens") == 3);
  CHECK(number_at(body, "usage.completion_tokens") == 6);
}

TEST_CASE("a prompt may be text, texts, ids or lists of ids") {
  gateway_world world;
  with_prompt(world, R"("A")");
  with_prompt(world, R"(["A","BC"])");
  with_prompt(world, "[65,66]");
  with_prompt(world, "[[65],[66,67]]");
  REQUIRE(world.engine->requests.size() == 6);
  CHECK(world.asked(0).prompt == std::vector<serve::token_id>{256, 65});
  CHECK(world.asked(2).prompt == std::vector<serve::token_id>{256, 66, 67});
  CHECK(world.asked(3).prompt == std::vector<serve::token_id>{65, 66});
  CHECK(world.asked(5).prompt == std::vector<serve::token_id>{66, 67});
}

TEST_CASE("choices are numbered prompt by prompt") {
  gateway_world world;
  const auto to = with_prompt(world, R"(["A","B"])", R"(,"n":2)");
  world.engine->says(1, "b0", finish_reason::stop, 0);
  world.engine->says(1, "b1", finish_reason::stop, 1);
  world.engine->says(0, "a0", finish_reason::stop, 0);
  CHECK_FALSE(to->ended);
  world.engine->says(0, "a1", finish_reason::stop, 1);
  const auto body = json(to->body);
  const std::vector<std::string> expected = {"a0", "a1", "b0", "b1"};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK(text_at(body, "choices." + std::to_string(i) + ".text") == expected[i]);
    CHECK(number_at(body, "choices." + std::to_string(i) + ".index") ==
          static_cast<std::int64_t>(i));
  }
  CHECK(number_at(body, "usage.prompt_tokens") == 4);  // each prompt once
  CHECK(number_at(body, "usage.completion_tokens") == 8);
}

TEST_CASE("when one prompt fails the others are taken back") {
  gateway_world world;
  const auto to = with_prompt(world, R"(["A","B","C"])");
  world.engine->fail(1, {errc::internal, "lost", ""});
  check_refused(*to, 500, "", "lost");
  CHECK(world.engine->cancelled == std::vector<serve::request_id>{1, 2, 3});
  world.engine->says(0, "late", finish_reason::stop);
}

TEST_CASE("a refusal at once stops the prompts behind it") {
  gateway_world world;
  world.engine->refusal = error{errc::overloaded, "full", ""};
  const auto to = with_prompt(world, R"(["A","B","C"])");
  check_refused(*to, 429, "", "full");
  CHECK(world.engine->requests.size() == 1);
}

TEST_CASE("a client that leaves cancels all its prompts") {
  gateway_world world;
  const auto to = with_prompt(world, R"(["A","B"])");
  to->leave();
  CHECK(world.engine->cancelled == std::vector<serve::request_id>{1, 2});
}

TEST_CASE("control tokens in a prompt are text unless the caller asks otherwise") {
  gateway_world world;
  with_prompt(world, R"("<|im_end|>")");
  CHECK(world.asked(0).prompt.size() == 11);
  with_prompt(world, R"("<|im_end|>")", R"(,"parse_special":true,"add_special_tokens":false)");
  CHECK(world.asked(1).prompt == std::vector<serve::token_id>{258});
}

TEST_CASE("echo puts the prompt's text before the completion") {
  gateway_world world;
  const auto text = world.complete(R"(,"echo":true)");
  world.engine->says(0, " you", finish_reason::stop);
  CHECK(text_at(json(text->body), "choices.0.text") == "Hi you");
  const auto ids = with_prompt(world, "[72,105]", R"(,"echo":true)");
  world.engine->says(1, "!", finish_reason::stop);
  CHECK(text_at(json(ids->body), "choices.0.text") == "Hi!");
}

TEST_CASE("a stream of a completion has text in every chunk and one finish") {
  gateway_world world;
  const auto to = world.complete(R"(,"stream":true,"stream_options":{"include_usage":true})");
  world.engine->says(0, "ab");
  world.engine->says(0, "c", finish_reason::length);
  const auto stream = frames(to->body);
  REQUIRE(stream.size() == 5);
  CHECK(text_at(json(stream[0]), "choices.0.text") == "ab");
  CHECK(at(json(stream[0]), "choices.0.finish_reason").is_null());
  CHECK(text_at(json(stream[1]), "choices.0.text") == "c");
  CHECK(text_at(json(stream[2]), "choices.0.text").empty());
  CHECK(text_at(json(stream[2]), "choices.0.finish_reason") == "length");
  CHECK(number_at(json(stream[3]), "usage.completion_tokens") == 3);
  CHECK(stream[4] == "[DONE]");
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(text_at(json(stream[i]), "object") == "text_completion");
}

TEST_CASE("a stream with echo begins with the prompt") {
  gateway_world world;
  const auto to = world.complete(R"(,"stream":true,"echo":true,"logprobs":0)");
  auto delta = world.engine->told(0, "!", finish_reason::stop);
  delta.prompt_logprobs = {{'H', -1.0F, 1, {}}, {'i', -2.0F, 1, {}}};
  delta.logprobs = {{'!', -3.0F, 1, {}}};
  world.engine->send(0, std::move(delta));
  const auto stream = frames(to->body);
  CHECK(text_at(json(stream[0]), "choices.0.text") == "Hi");
  CHECK(at(json(stream[0]), "choices.0.logprobs.token_logprobs").to_json() == "[null,-1,-2]");
  CHECK(text_at(json(stream[1]), "choices.0.text") == "!");
  CHECK(at(json(stream[1]), "choices.0.logprobs.text_offset").to_json() == "[2]");
}

TEST_CASE("logprobs of a completion are parallel arrays") {
  gateway_world world;
  const auto to = world.complete(R"(,"logprobs":2)");
  CHECK(world.asked().sampling.logprobs == 2);
  CHECK(world.asked().sampling.prompt_logprobs == -1);
  auto delta = world.engine->told(0, "ab", finish_reason::stop);
  delta.logprobs = {{'a', -0.5F, 1, {{'a', -0.5F}, {'x', -1.0F}}},
                    {'b', -4.0F, 9, {{'y', -0.25F}, {'z', -2.0F}}}};
  world.engine->send(0, std::move(delta));
  const auto body = json(to->body);
  const auto& told = at(body, "choices.0.logprobs");
  CHECK(at(told, "tokens").to_json() == R"(["a","b"])");
  CHECK(at(told, "token_logprobs").to_json() == "[-0.5,-4]");
  CHECK(at(told, "text_offset").to_json() == "[0,1]");
  CHECK(at(told, "top_logprobs.0").if_object()->size() == 2);
  // The chosen token is told even when it is none of the likeliest.
  CHECK(at(told, "top_logprobs.1").to_json() == R"({"y":-0.25,"z":-2,"b":-4})");
}

TEST_CASE("echo with logprobs scores the prompt, its first token without a number") {
  gateway_world world;
  const auto to = with_prompt(world, "[72,105,33]", R"(,"echo":true,"logprobs":1,"max_tokens":0)");
  CHECK(world.asked().sampling.prompt_logprobs == 1);
  CHECK(world.asked().stops.max_tokens == 1);
  auto delta = world.engine->told(0, "Q", finish_reason::length);
  delta.prompt_logprobs = {{'i', -1.5F, 1, {{'i', -1.5F}}}, {'!', -2.5F, 2, {{'?', -0.5F}}}};
  delta.logprobs = {{'Q', -1.0F, 1, {{'Q', -1.0F}}}};
  world.engine->send(0, std::move(delta));
  const auto body = json(to->body);
  CHECK(text_at(body, "choices.0.text") == "Hi!");
  CHECK(text_at(body, "choices.0.finish_reason") == "length");
  CHECK(at(body, "choices.0.logprobs.tokens").to_json() == R"(["H","i","!"])");
  CHECK(at(body, "choices.0.logprobs.token_logprobs").to_json() == "[null,-1.5,-2.5]");
  CHECK(at(body, "choices.0.logprobs.top_logprobs.0").is_null());
  CHECK(at(body, "choices.0.logprobs.top_logprobs.2").to_json() == R"({"?":-0.5,"!":-2.5})");
  CHECK(at(body, "choices.0.logprobs.text_offset").to_json() == "[0,1,2]");
  CHECK(number_at(body, "usage.completion_tokens") == 0);
}

TEST_CASE("every choice of a scored prompt tells the prompt's numbers") {
  gateway_world world;
  const auto to = with_prompt(world, "[72,105]", R"(,"echo":true,"logprobs":0,"n":2)");
  auto first = world.engine->told(0, "a", finish_reason::stop, 0);
  first.prompt_logprobs = {{'i', -1.5F, 1, {}}};
  first.logprobs = {{'a', -1.0F, 1, {}}};
  world.engine->send(0, std::move(first));
  auto second = world.engine->told(0, "b", finish_reason::stop, 1);
  second.logprobs = {{'b', -1.0F, 1, {}}};
  world.engine->send(0, std::move(second));
  const auto body = json(to->body);
  CHECK(at(body, "choices.1.logprobs.token_logprobs").to_json() == "[null,-1.5,-1]");
}

TEST_CASE("a model without a tokenizer takes ids and gives ids") {
  gateway_world world;
  const auto to = world.post("/v1/completions",
                             R"({"model":"wordless","prompt":[1,2,3],"return_token_ids":true,)"
                             R"("logprobs":1})");
  CHECK_FALSE(world.asked().want_text);
  auto delta = world.engine->told(0, "", finish_reason::length);
  delta.tokens = {7, 8};
  delta.logprobs = {{7, -1.0F, 1, {{7, -1.0F}}}, {8, -2.0F, 1, {{8, -2.0F}}}};
  world.engine->send(0, std::move(delta));
  const auto body = json(to->body);
  CHECK(text_at(body, "choices.0.text").empty());
  CHECK(at(body, "choices.0.token_ids").to_json() == "[7,8]");
  CHECK(at(body, "choices.0.prompt_token_ids").to_json() == "[1,2,3]");
  CHECK(at(body, "choices.0.logprobs.tokens").to_json() == R"(["token_id:7","token_id:8"])");
  check_refused(*world.post("/v1/completions", R"({"model":"wordless","prompt":"Hi"})"), 400,
                "prompt", "send token ids");
  check_refused(*world.post("/v1/completions", R"({"model":"wordless","prompt":[1],"stop":"x"})"),
                400, "stop", "stop_token_ids");
}

TEST_CASE("prompts of a wrong shape are refused by name") {
  check_prompt_refused("5", "prompt", "but got an integer");
  check_prompt_refused("[]", "prompt", "empty");
  check_prompt_refused("[[]]", "prompt", "empty prompt");
  check_prompt_refused("[true]", "prompt[0]", "a string or token ids");
  check_prompt_refused(R"([65,"x"])", "prompt[1]", "expected a token id, but got a string");
  check_prompt_refused("[65,-1]", "prompt[1]", "-1");
  check_prompt_refused("[65,259]", "prompt", "outside the vocabulary of 259");
  check_prompt_refused("[65,99999999999]", "prompt[1]", "99999999999");
  check_prompt_refused("[65,1.5]", "prompt[1]", "1.5");
  gateway_world world;
  check_refused(*world.post("/v1/completions", R"({"model":"bytes"})"), 400, "prompt", "Missing");
}

TEST_CASE("a completion that does not fit the context is refused") {
  gateway_world world;
  const auto to = world.complete(R"(,"max_tokens":198)");
  check_refused(*to, 400, "prompt", "you requested 201 tokens (3 in the messages, 198 in the");
  CHECK(text_at(json(to->body), "error.code") == "context_length_exceeded");
}

TEST_CASE("a suffix is refused, an empty one is none") {
  gateway_world world;
  check_refused(*world.complete(R"(,"suffix":"end")"), 400, "suffix", "not built");
  world.complete(R"(,"suffix":"")");
  CHECK(world.engine->requests.size() == 1);
}

TEST_CASE("prompts times choices are bounded") {
  gateway_world world;
  std::string prompts = "[";
  for (int i = 0; i < 20; ++i) prompts += i == 0 ? "\"A\"" : ",\"A\"";
  check_refused(*with_prompt(world, prompts + "]", R"(,"n":100)"), 400, "n",
                "20 prompts times n = 100");
}
