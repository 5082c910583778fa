// /v1/models, the model's sampling defaults, and the routes that show a prompt without running it.
#include "tests/support/gateway_world.hpp"

using namespace tandem;
using namespace tandem::test;

TEST_CASE("the list of models has what clients need to use each") {
  gateway_world world;
  const auto body = json(world.call("GET", "/v1/models")->body);
  CHECK(text_at(body, "object") == "list");
  CHECK(text_at(body, "data.0.id") == "bytes");
  CHECK(text_at(body, "data.0.object") == "model");
  CHECK(number_at(body, "data.0.created") == 1'700'000'000);
  CHECK(text_at(body, "data.0.owned_by") == "tandem");
  CHECK(number_at(body, "data.0.max_model_len") == 200);
  CHECK(*at(body, "data.0.chat").if_bool());
  CHECK_FALSE(*at(body, "data.1.chat").if_bool());
}

TEST_CASE("one model states its context length and its sampling defaults") {
  gateway_world world;
  auto model = byte_model();
  model->id = "org/name";
  model->defaults.temperature = 0.6F;
  model->defaults.top_k = 20;
  model->weights_version = 3;
  world.engine->served.push_back(model);
  const auto body = json(world.call("GET", "/v1/models/org/name")->body);
  CHECK(text_at(body, "id") == "org/name");
  CHECK(number_at(body, "context_length") == 200);
  CHECK(number_at(body, "weights_version") == 3);
  CHECK(*at(body, "sampling_defaults.temperature").if_double() == 0.6);
  CHECK(number_at(body, "sampling_defaults.top_p") == 1);
  CHECK(number_at(body, "sampling_defaults.top_k") == 20);
  check_refused(*world.call("GET", "/v1/models/nobody"), 404, "model", "does not exist");
}

TEST_CASE("a model's own sampling defaults hold where the request says nothing") {
  gateway_world world;
  auto model = byte_model();
  model->defaults.temperature = 0.6F;
  model->defaults.top_p = 0.95F;
  model->defaults.top_k = 20;
  model->defaults.min_p = 0.05F;
  model->defaults.repetition_penalty = 1.1F;
  model->defaults.eos_ids = {258, 257};
  world.engine->served = {model};
  world.chat(R"(,"top_k":-1,"top_p":0.5)");
  const auto& sampling = world.asked().sampling;
  CHECK(sampling.temperature == 0.6F);
  CHECK(sampling.top_p == 0.5F);
  CHECK(sampling.top_k == 0);
  CHECK(sampling.min_p == 0.05F);
  CHECK(sampling.repetition_penalty == 1.1F);
  CHECK(world.asked().stops.eos_ids == std::vector<serve::token_id>{258, 257});
}

TEST_CASE("without defaults of the model, temperature and top_p are 1") {
  gateway_world world;
  world.chat();
  CHECK(world.asked().sampling.temperature == 1.0F);
  CHECK(world.asked().sampling.top_p == 1.0F);
  CHECK(world.asked().sampling.logprobs == -1);
}

TEST_CASE("every sampling field reaches the engine") {
  gateway_world world;
  world.chat(R"(,"temperature":0.5,"top_p":0.25,"top_k":7,"min_p":0.125,"presence_penalty":1,)"
             R"("frequency_penalty":-1,"repetition_penalty":1.5,"min_tokens":2,"ignore_eos":true,)"
             R"("include_stop_str_in_output":true,"skip_special_tokens":false,"priority":-4,)"
             R"("cache_salt":"mine","n":2)");
  const auto& asked = world.asked();
  CHECK(asked.sampling.temperature == 0.5F);
  CHECK(asked.sampling.top_p == 0.25F);
  CHECK(asked.sampling.top_k == 7);
  CHECK(asked.sampling.min_p == 0.125F);
  CHECK(asked.sampling.presence_penalty == 1.0F);
  CHECK(asked.sampling.frequency_penalty == -1.0F);
  CHECK(asked.sampling.repetition_penalty == 1.5F);
  CHECK(asked.stops.min_tokens == 2);
  CHECK(asked.stops.ignore_eos);
  CHECK(asked.stops.include_stop);
  CHECK_FALSE(asked.skip_special_tokens);
  CHECK(asked.priority == -4);
  CHECK(asked.cache_salt == "mine");
  CHECK(asked.choices == 2);
  CHECK(asked.best_of == 2);
}

TEST_CASE("tokenize shows a prompt's ids") {
  gateway_world world;
  world.engine->served = {byte_model()};
  const auto body =
      json(world.post("/tokenize", R"({"prompt":"Hi !","return_token_strs":true})")->body);
  CHECK(number_at(body, "count") == 5);
  CHECK(number_at(body, "max_model_len") == 200);
  CHECK(at(body, "tokens").to_json() == "[256,72,105,32,33]");
  CHECK(text_at(body, "token_strs.3") == "Ġ");
  const auto bare =
      json(world.post("/tokenize", R"({"prompt":"Hi","add_special_tokens":false})")->body);
  CHECK(at(bare, "tokens").to_json() == "[72,105]");
  CHECK(at(bare, "token_strs").is_null());
}

TEST_CASE("tokenize shows a conversation's ids as chat would run them") {
  gateway_world world;
  const std::string conversation =
      R"({"model":"bytes","messages":[{"role":"user","content":"Hi"}]})";
  const auto body = json(world.post("/tokenize", conversation)->body);
  world.chat();
  CHECK(number_at(body, "count") == static_cast<std::int64_t>(world.asked().prompt.size()));
  CHECK(number_at(body, "tokens.0") == 257);
}

TEST_CASE("detokenize gives the text of ids, control tokens included") {
  gateway_world world;
  const auto body =
      json(world.post("/detokenize", R"({"model":"bytes","tokens":[257,72,105]})")->body);
  CHECK(text_at(body, "prompt") == "<|im_start|>Hi");
  check_refused(*world.post("/detokenize", R"({"model":"bytes","tokens":[259]})"), 400, "tokens",
                "vocabulary of 259");
  check_refused(*world.post("/detokenize", R"({"model":"bytes","tokens":"x"})"), 400, "tokens",
                "expected an array");
  check_refused(*world.post("/detokenize", R"({"model":"bytes"})"), 400, "tokens", "Missing");
}

TEST_CASE("render shows the prompt's text and ids") {
  gateway_world world;
  const auto body = json(
      world.post("/render", R"({"model":"bytes","messages":[{"role":"user","content":"Hi"}]})")
          ->body);
  CHECK(text_at(body, "text") == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  CHECK(number_at(body, "count") ==
        static_cast<std::int64_t>(at(body, "tokens").if_array()->size()));
}

TEST_CASE("routes about text need a model with a tokenizer") {
  gateway_world world;
  check_refused(*world.post("/tokenize", R"({"model":"wordless","prompt":"Hi"})"), 400, "model",
                "no tokenizer");
  check_refused(*world.post("/tokenize", R"({"model":"bytes"})"), 400, "prompt", "'messages'");
  check_refused(*world.post("/tokenize", R"({"prompt":"Hi"})"), 400, "model", "model parameter");
}
