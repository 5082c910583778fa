// What is refused, with which status, and in which words: no bad request is a 500, none is run.
#include "gateway/http_error.hpp"
#include "tests/support/gateway_world.hpp"

using namespace tandem;
using namespace tandem::test;

namespace {

// Both generating routes read these fields alike.
void check_field_refused(const std::string& field, const std::string& param,
                         const std::string& part_of_message) {
  gateway_world world;
  INFO(field);
  check_refused(*world.chat("," + field), 400, param, part_of_message);
  check_refused(*world.complete("," + field), 400, param, part_of_message);
  CHECK(world.engine->requests.empty());
}

}  // namespace

TEST_CASE("a body that is no JSON object is a bad request, never a server error") {
  gateway_world world;
  for (const std::string body :
       {"", " ", "{", "[]", "3", "null", "\"x\"", "{\"model\":}", "{} {}", "{\"a\":1,}",
        "{\"a\":NaN}", "{\"a\":1e999}", "{\"a\":\"\xFF\"}", "{\"a\":\"\\ud800\"}", "{'a':1}"}) {
    INFO(body);
    check_refused(*world.post("/v1/chat/completions", body), 400, "", "JSON");
    check_refused(*world.post("/v1/completions", body), 400, "", "JSON");
    check_refused(*world.post("/tokenize", body), 400, "", "JSON");
    check_refused(*world.post("/detokenize", body), 400, "", "JSON");
    check_refused(*world.post("/render", body), 400, "", "JSON");
  }
}

TEST_CASE("a body nested without end is refused") {
  gateway_world world;
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "{\"a\":[";
  check_refused(*world.post("/v1/chat/completions", deep), 400, "", "JSON");
  std::string closed = R"({"model":"bytes","x":)" + std::string(300, '[') + std::string(300, ']');
  check_refused(*world.post("/v1/chat/completions", closed + "}"), 400, "", "JSON");
}

TEST_CASE("numbers of a wrong type or out of range are named") {
  check_field_refused(
      R"("temperature":"hot")", "temperature",
      "Invalid type for 'temperature': expected a number, but got a string instead.");
  check_field_refused(R"("temperature":2.1)", "temperature", "<= 2, but got 2.1");
  check_field_refused(R"("temperature":-0.1)", "temperature", ">= 0");
  check_field_refused(R"("temperature":true)", "temperature", "boolean");
  check_field_refused(R"("top_p":0)", "top_p", "> 0");
  check_field_refused(R"("top_p":1.01)", "top_p", "<= 1");
  check_field_refused(R"("top_k":-2)", "top_k", ">= -1");
  check_field_refused(R"("top_k":1.5)", "top_k", "expected an integer, but got a decimal");
  check_field_refused(R"("min_p":1.5)", "min_p", "<= 1");
  check_field_refused(R"("presence_penalty":3)", "presence_penalty", "<= 2");
  check_field_refused(R"("frequency_penalty":-3)", "frequency_penalty", ">= -2");
  check_field_refused(R"("repetition_penalty":0)", "repetition_penalty", "> 0");
  check_field_refused(R"("n":0)", "n", ">= 1");
  check_field_refused(R"("n":129)", "n", "<= 128");
  check_field_refused(R"("n":2,"best_of":3)", "best_of", "'n' (2)");
  check_field_refused(R"("max_tokens":-1)", "max_tokens", ">= 0");
  check_field_refused(R"("max_tokens":99999999999)", "max_tokens", "<=");
  check_field_refused(R"("max_tokens":18446744073709551615)", "max_tokens", "18446744073709551615");
  check_field_refused(R"("max_tokens":4,"min_tokens":5)", "min_tokens", "max_tokens (4)");
  check_field_refused(R"("seed":1.5)", "seed", "expected an integer");
  check_field_refused(R"("priority":"high")", "priority", "string");
  check_field_refused(R"("stream":"yes")", "stream", "expected a boolean");
  check_field_refused(R"("stream_options":true)", "stream_options", "expected an object");
  check_field_refused(R"("prompt_logprobs":21)", "prompt_logprobs", "<= 20");
  check_field_refused(R"("prompt_logprobs":1,"stream":true)", "prompt_logprobs", "'stream'");
}

TEST_CASE("stop strings are bounded in number and length, and never empty") {
  check_field_refused(R"("stop":5)", "stop", "an array of strings, but got an integer");
  check_field_refused(R"("stop":["a","b","c","d","e"])", "stop", "at most 4 elements, but got 5");
  check_field_refused(R"("stop":["a",5])", "stop[1]", "expected a string");
  check_field_refused(R"("stop":"")", "stop", "empty");
  check_field_refused(R"("stop":")" + std::string(2000, 'x') + "\"", "stop", "1024 bytes");
  check_field_refused(R"("stop_token_ids":[1,-1])", "stop_token_ids[1]", "-1");
  check_field_refused(R"("stop_token_ids":[259])", "stop_token_ids", "vocabulary of 259");
}

TEST_CASE("logit_bias holds known ids and small numbers only") {
  check_field_refused(R"("logit_bias":[1])", "logit_bias", "expected an object");
  check_field_refused(R"("logit_bias":{"x":1})", "logit_bias", "token ids, but got 'x'");
  check_field_refused(R"("logit_bias":{"-1":1})", "logit_bias", "token ids");
  check_field_refused(R"("logit_bias":{"5":101})", "logit_bias.5", "<= 100");
  check_field_refused(R"("logit_bias":{"259":1})", "logit_bias", "outside the vocabulary");
  std::string many = R"("logit_bias":{)";
  for (int i = 0; i <= 1024; ++i) many += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":1";
  check_field_refused(many + "}", "logit_bias", "at most 1024");
  gateway_world world;
  world.chat(R"(,"logit_bias":{"5":-100,"6":1.5})");
  CHECK(world.asked().sampling.logit_bias ==
        std::vector<std::pair<serve::token_id, float>>{{5, -100.0F}, {6, 1.5F}});
}

TEST_CASE("logprobs have each route's own type") {
  gateway_world world;
  check_refused(*world.chat(R"(,"logprobs":5)"), 400, "logprobs", "expected a boolean");
  check_refused(*world.chat(R"(,"logprobs":true,"top_logprobs":21)"), 400, "top_logprobs", "<= 20");
  check_refused(*world.chat(R"(,"top_logprobs":2)"), 400, "top_logprobs", "'logprobs' is true");
  check_refused(*world.complete(R"(,"logprobs":true)"), 400, "logprobs", "expected an integer");
  check_refused(*world.complete(R"(,"logprobs":21)"), 400, "logprobs", "<= 20");
  check_refused(*world.chat(R"(,"max_tokens":0)"), 400, "max_tokens", ">= 1");
}

TEST_CASE("what is not built is refused by name, never ignored") {
  check_field_refused(R"("response_format":{"type":"json_object"})", "response_format",
                      "json_object");
  check_field_refused(R"("response_format":{"type":"json_schema","json_schema":{}})",
                      "response_format", "json_schema");
  check_field_refused(R"("guided_json":{"type":"object"})", "guided_json", "not built");
  check_field_refused(R"("structured_outputs":{"choice":["a"]})", "structured_outputs",
                      "not built");
  check_field_refused(R"("use_beam_search":true)", "use_beam_search", "not built");
  check_field_refused(R"("truncate_prompt_tokens":5)", "truncate_prompt_tokens", "not built");
  check_field_refused(R"("bad_words":["x"])", "bad_words", "not built");
  gateway_world world;
  const auto to = world.chat(R"(,"guided_regex":"a+")");
  CHECK(text_at(json(to->body), "error.code") == "unsupported_value");
  check_refused(*world.chat(R"(,"modalities":["audio"])"), 400, "modalities", "audio");
  check_refused(*world.chat(R"(,"functions":[{}])"), 400, "functions", "not built");
}

TEST_CASE("fields without effect, nulls and unknown fields pass") {
  gateway_world world;
  const auto to = world.chat(
      R"(,"user":"u","metadata":{"a":"b"},"store":true,"service_tier":"auto","temperature":null,)"
      R"("stop":null,"response_format":{"type":"text"},"modalities":["text"],"tools":[],)"
      R"("use_beam_search":false,"tool_choice":"auto","something_new":{"x":[1]},"n":1.0)");
  CHECK(world.engine->requests.size() == 1);
  CHECK(to->header("x-tandem-warning").empty());
}

TEST_CASE("a misspelt sampling field is ignored with a warning that names the right one") {
  gateway_world world;
  world.engine->answer = "ok";
  const auto whole = world.chat(R"(,"temprature":0)");
  CHECK(whole->status == 200);
  CHECK(whole->header("x-tandem-warning") ==
        "unknown field 'temprature', did you mean 'temperature'?");
  const auto streamed = world.complete(R"(,"stream":true,"maxTokens":5)");
  CHECK(streamed->header("x-tandem-warning") ==
        "unknown field 'maxTokens', did you mean 'max_tokens'?");
  // A header cannot be broken out of.
  CHECK(world.chat(R"(,"temper\r\nature":0)")->header("x-tandem-warning").empty());
  CHECK(world.chat(R"(,"extra_body":0,"thinking":1,"m":2)")->header("x-tandem-warning").empty());
}

TEST_CASE("of a field given twice the last one counts") {
  gateway_world world;
  world.chat(R"(,"max_tokens":3,"max_tokens":4)");
  CHECK(world.asked().stops.max_tokens == 4);
}

TEST_CASE("an unknown model is a 404 that lists the known ones") {
  gateway_world world;
  const auto to = world.post("/v1/chat/completions",
                             R"({"model":"gpt-4","messages":[{"role":"user","content":"Hi"}]})");
  check_refused(*to, 404, "model", "The model 'gpt-4' does not exist");
  CHECK(text_at(json(to->body), "error.code") == "model_not_found");
  CHECK_THAT(to->body, Catch::Contains("'bytes', 'wordless'"));
  check_refused(*world.post("/v1/completions", R"({"prompt":"Hi"})"), 400, "model",
                "must provide a model");
  check_refused(*world.post("/v1/completions", R"({"model":5,"prompt":"Hi"})"), 400, "model",
                "expected a string");
}

TEST_CASE("before and after its time the server answers 503 and when to come back") {
  gateway_world world;
  for (const auto state :
       {gateway::readiness::starting, gateway::readiness::draining, gateway::readiness::failed}) {
    world.engine->now = state;
    const auto to = world.chat();
    CHECK(to->status == 503);
    CHECK(to->header("retry-after") == "2");
    CHECK(text_at(json(to->body), "error.code") == "service_unavailable");
  }
  CHECK(world.engine->requests.empty());
}

TEST_CASE("errors of the engine keep their status") {
  const auto status_after = [](errc code) {
    gateway_world world;
    const auto to = world.chat();
    world.engine->fail(0, {code, "why", ""});
    REQUIRE(to->ended);
    CHECK(text_at(json(to->body), "error.message") == "why");
    return to->status;
  };
  CHECK(status_after(errc::overloaded) == 429);
  CHECK(status_after(errc::unavailable) == 503);
  CHECK(status_after(errc::timed_out) == 504);
  CHECK(status_after(errc::context_length_exceeded) == 400);
  CHECK(status_after(errc::no_memory) == 400);
  CHECK(status_after(errc::internal) == 500);
}

TEST_CASE("clients are told not to repeat what cannot work the next time") {
  const auto retries = [](errc code, const std::string& param) {
    const auto response = gateway::error_response({code, "why", param});
    for (const auto& [name, value] : response.headers)
      if (name == "x-should-retry") return value == "true";
    // What openai clients do without that header.
    return response.status == 408 || response.status == 409 || response.status == 429 ||
           response.status >= 500;
  };
  CHECK_FALSE(retries(errc::bad_request, "n"));
  CHECK_FALSE(retries(errc::unsupported, "n"));
  CHECK_FALSE(retries(errc::unsupported, ""));
  CHECK_FALSE(retries(errc::timed_out, ""));
  CHECK_FALSE(retries(errc::no_memory, ""));
  CHECK(retries(errc::overloaded, ""));
  CHECK(retries(errc::unavailable, ""));
  CHECK(retries(errc::internal, ""));
}

TEST_CASE("an error body is JSON whatever the words in it") {
  const auto body = gateway::error_body({errc::bad_request, "a \"b\" \\ \n \xFF\xE2\x82", ""});
  CHECK(text_at(json(body), "error.message") ==
        "a \"b\" \\ \n \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST_CASE("published routes that are not built say so") {
  gateway_world world;
  for (const std::string path :
       {"/v1/embeddings", "/v1/responses", "/v1/files", "/v1/fine_tuning/jobs", "/v1/batches",
        "/v1/messages", "/v1/messages/count_tokens"}) {
    const auto to = world.post(path, "{}");
    check_refused(*to, 501, "", "not built yet");
    CHECK(to->header("x-should-retry") == "false");
  }
  CHECK(world.call("GET", "/v1/files/file-1/content")->status == 501);
  CHECK(world.call("GET", "/v1/fine_tuning/jobs")->status == 501);
}
