#include "runtime/train/job_options.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>

using namespace tandem;
using namespace tandem::train;
using tandem::text::value;

namespace {

value json(std::string_view text) {
  auto parsed = value::from_json(text);
  REQUIRE(parsed);
  return std::move(*parsed);
}

model::model_config config_of(std::int64_t model_size, std::int64_t context) {
  model::model_config config;
  config.family = "llama";
  config.model_size = model_size;
  config.context_length = context;
  config.layers.resize(2);
  return config;
}

job_settings settled(std::string_view hyperparameters, std::string_view own, data_facts facts,
                     std::int64_t model_size = 576, std::int64_t context = 8192) {
  auto s = settle_options(json(hyperparameters), json(own), config_of(model_size, context), facts,
                          4, 42);
  if (!s) FAIL(s.error().detail);
  return std::move(*s);
}

void refused(std::string_view hyperparameters, std::string_view own, std::string_view param,
             std::string_view says) {
  INFO(hyperparameters << " " << own);
  const auto checked = check_options(json(hyperparameters), json(own));
  REQUIRE_FALSE(checked);
  CHECK(checked.error().code == errc::bad_request);
  CHECK(checked.error().param == param);
  INFO(checked.error().detail);
  CHECK(checked.error().detail.find(says) != std::string::npos);
}

constexpr std::string_view published = "method.supervised.hyperparameters.";

}  // namespace

TEST_CASE("nothing asked for and everything auto are the same job") {
  const auto a = settled("null", "null", {100, 300});
  const auto b = settled(
      R"({"n_epochs":"auto","batch_size":"auto","learning_rate_multiplier":"auto"})",
      R"({"rank":"auto","learning_rate":"auto","serve_format":"auto","targets":null})", {100, 300});
  CHECK(a == b);
  CHECK(a.method == training_method::lora);
  CHECK(a.rank == 16);
  CHECK(a.alpha == 32.0);
  CHECK(a.targets == std::vector<std::string>{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                                              "up_proj", "down_proj"});
  CHECK(a.serve_format == "bf16");
  CHECK(a.slots == 4);
  CHECK(a.seed == 42);
  CHECK(a.publish_every_steps == 0);
  CHECK(a.checkpoint_every_steps == 0);
}

TEST_CASE("auto makes about 200 steps of few examples and three epochs of many") {
  struct row {
    std::int64_t examples;
    std::int64_t batch_size;
    int epochs;
  };
  for (const auto& [examples, batch_size, epochs] :
       {row{1, 1, 25}, row{8, 1, 25}, row{20, 2, 20}, row{50, 4, 16}, row{100, 4, 8},
        row{1'000, 4, 3}, row{7'473, 15, 3}, row{100'000, 64, 3}}) {
    INFO(examples);
    const auto s = settled("null", "null", {examples, 100});
    CHECK(s.batch_size == batch_size);
    CHECK(s.epochs == epochs);
  }
}

TEST_CASE("the default rate falls with the model's width and is ten times lower for all weights") {
  CHECK(settled("null", "null", {100, 100}, 576).learning_rate == 1.3e-3);
  CHECK(settled("null", "null", {100, 100}, 4096).learning_rate == 2.9e-4);
  CHECK(settled("null", R"({"method":"full"})", {100, 100}, 576).learning_rate == 1.3e-4);
  CHECK(settled("null", R"({"method":"full"})", {100, 100}, 4096).learning_rate == 2.9e-5);
}

TEST_CASE("the multiplier scales the default, an absolute rate goes before both") {
  const auto doubled = settled(R"({"learning_rate_multiplier":2})", "null", {100, 100});
  CHECK(doubled.learning_rate == 2.6e-3);
  CHECK(doubled.learning_rate_multiplier == 2.0);
  const auto absolute =
      settled(R"({"learning_rate_multiplier":2})", R"({"learning_rate":1.3e-3})", {100, 100});
  CHECK(absolute.learning_rate == 1.3e-3);
  CHECK(absolute.learning_rate_multiplier == 1.0);
}

TEST_CASE("a multiplier that makes no sensible rate is refused with what one would be") {
  for (const char* factor : {"1e4", "1e-323"}) {
    const auto s =
        settle_options(json(std::string(R"({"learning_rate_multiplier":)") + factor + "}"), value(),
                       config_of(576, 8192), {10, 10}, 4, 0);
    REQUIRE_FALSE(s);
    CHECK(s.error().param == std::string(published) + "learning_rate_multiplier");
    CHECK(s.error().detail.find("0.0013") != std::string::npos);
  }
}

TEST_CASE("rows are as long as the longest example, at least 256 and at most the context") {
  CHECK(settled("null", "null", {10, 17}).sequence_length == 256);
  CHECK(settled("null", "null", {10, 300}).sequence_length == 304);
  CHECK(settled("null", "null", {10, 304}).sequence_length == 304);
  CHECK(settled("null", "null", {10, 9000}).sequence_length == 8192);
  CHECK(settled("null", "null", {10, 17}, 576, 128).sequence_length == 128);
  const auto too_much = settle_options(json("null"), json(R"({"sequence_length":8193})"),
                                       config_of(576, 8192), {10, 17}, 4, 0);
  REQUIRE_FALSE(too_much);
  CHECK(too_much.error().param == "tandem.sequence_length");
  CHECK(too_much.error().detail.find("8192") != std::string::npos);
}

TEST_CASE("alpha follows the rank unless it is given") {
  CHECK(settled("null", R"({"rank":8})", {10, 10}).alpha == 16.0);
  CHECK(settled("null", R"({"rank":8,"alpha":8})", {10, 10}).alpha == 8.0);
}

TEST_CASE("targets are the family's own linear modules") {
  auto phi = config_of(3072, 4096);
  phi.family = "phi3";
  CHECK(settle_options(json("null"), json("null"), phi, {10, 10}, 4, 0)->targets ==
        std::vector<std::string>{"qkv_proj", "o_proj", "gate_up_proj", "down_proj"});
  auto mixture = config_of(2048, 4096);
  for (auto& layer : mixture.layers) layer.moe = true;
  CHECK(settle_options(json("null"), json("null"), mixture, {10, 10}, 4, 0)->targets ==
        std::vector<std::string>{"q_proj", "k_proj", "v_proj", "o_proj"});
  CHECK(settled("null", R"({"method":"full"})", {10, 10}).targets.empty());
  CHECK(settled("null", R"({"targets":["v_proj","q_proj","v_proj"]})", {10, 10}).targets ==
        std::vector<std::string>{"v_proj", "q_proj"});
}

TEST_CASE("warm-up is a twentieth of the steps, at most 100") {
  CHECK(settled("null", "null", {100, 10}).warmup_steps == 10);  // of 200
  CHECK(settled("null", "null", {1'000'000, 10}).warmup_steps == 100);
  CHECK(settled("null", R"({"warmup_steps":0})", {100, 10}).warmup_steps == 0);
}

TEST_CASE("an unknown option is refused with the nearest one") {
  const std::string at(published);
  refused(R"({"n_epoch":3})", "null", at + "n_epoch", "did you mean 'n_epochs'?");
  refused("null", R"({"rnak":3})", "tandem.rnak", "did you mean 'rank'?");
  refused("null", R"({"zzzzzzzz":3})", "tandem.zzzzzzzz", "known are method, rank");
  refused("null", R"({"n_epochs":3})", "tandem.n_epochs",
          "belongs under method.supervised.hyperparameters");
  refused("null", R"({"epochs":3})", "tandem.epochs", "as 'n_epochs'");
  refused(R"({"rank":3})", "null", at + "rank", "belongs under \"tandem\"");
  refused("null", R"({"seed":3})", "tandem.seed", "Unknown");
}

TEST_CASE("impossible values are refused with what is possible and what was given") {
  const std::string at(published);
  for (const char* wrong : {"0", "51", "3.0", "\"3\"", "true", "[]", "-1", "1e400"})
    if (auto v = value::from_json(std::string(R"({"n_epochs":)") + wrong + "}")) {
      const auto checked = check_options(*v, value());
      REQUIRE_FALSE(checked);
      CHECK(checked.error().param == at + "n_epochs");
      CHECK(checked.error().detail.find("an integer from 1 to 50, or \"auto\"") !=
            std::string::npos);
    }
  refused(R"({"batch_size":257})", "null", at + "batch_size",
          "from 1 to 256, or \"auto\", not 257");
  refused(R"({"learning_rate_multiplier":0})", "null", at + "learning_rate_multiplier", "above 0");
  refused(R"({"learning_rate_multiplier":-0.5})", "null", at + "learning_rate_multiplier", "above");
  refused("7", "null", "method.supervised.hyperparameters", "must be an object");
  refused("null", "[]", "tandem", "must be an object");
  for (const char* own : {R"({"method":"dpo"})",
                          R"({"rank":0})",
                          R"({"alpha":0})",
                          R"({"learning_rate":0})",
                          R"({"learning_rate":1.5})",
                          R"({"betas":[0.9]})",
                          R"({"betas":[0.9,1.0]})",
                          R"({"betas":0.9})",
                          R"({"eps":0})",
                          R"({"sequence_length":1})",
                          R"({"micro_batch":0})",
                          R"({"packing":1})",
                          R"({"shuffle":"yes"})",
                          R"({"schedule":"step"})",
                          R"({"warmup_steps":-1})",
                          R"({"weight_decay":-0.1})",
                          R"({"clip_norm":-1})",
                          R"({"publish_every_steps":-1})",
                          R"({"checkpoint_every_steps":1.5})",
                          R"({"checkpoints_kept":0})",
                          R"({"slots":3})",
                          R"({"slots":128})",
                          R"({"slots":0})",
                          R"({"serve_format":"fp8"})",
                          R"({"recompute":0})",
                          R"({"precision":"fp8"})",
                          R"({"long_examples":"cut"})",
                          R"({"targets":"q_proj"})",
                          R"({"targets":["q_porj"]})",
                          R"({"targets":[]})"}) {
    INFO(own);
    const value asked = json(own);
    const auto checked = check_options(value(), asked);
    REQUIRE_FALSE(checked);
    CHECK(checked.error().param == "tandem." + asked.if_object()->front().first);
  }
  refused("null", R"({"targets":["q_porj"]})", "tandem.targets", "did you mean 'q_proj'?");
  refused("null", R"({"slots":3})", "tandem.slots", "1, 2, 4, 8, 16, 32 or 64, not 3");
}

TEST_CASE("an option that the method does not have is refused, not passed over") {
  refused("null", R"({"method":"full","rank":8})", "tandem.rank", "no effect");
  refused("null", R"({"method":"full","targets":["q_proj"]})", "tandem.targets", "no effect");
  refused("null", R"({"serve_format":"q8_0"})", "tandem.serve_format", "no effect");
  CHECK(check_options(value(), json(R"({"method":"full","rank":"auto"})")));
  CHECK(check_options(value(), json(R"({"method":"full","serve_format":"q4_1"})")));
}

TEST_CASE("settled settings come back from JSON to the bit") {
  job_settings s;
  s.method = training_method::full;
  s.rank = 7;
  s.alpha = 0.1;
  s.targets = {"k_proj", "o_proj"};
  s.epochs = 50;
  s.batch_size = 256;
  s.slots = 64;
  s.micro_batch = 3;
  s.sequence_length = 12345;
  s.packing = false;
  s.shuffle = false;
  s.seed = std::numeric_limits<std::uint64_t>::max();
  s.long_examples = too_long::skip;
  s.learning_rate = std::nextafter(2e-4, 1.0);
  s.learning_rate_multiplier = 1.0 / 3.0;
  s.beta1 = 0.1 + 0.2;
  s.beta2 = std::nextafter(1.0, 0.0);
  s.eps = 5e-324;
  s.weight_decay = 1.0;
  s.clip_norm = 0.0;
  s.schedule = schedule_kind::warmup_stable_decay;
  s.warmup_steps = 9;
  s.precision = product_precision::f32;
  s.recompute = true;
  s.publish_every_steps = 10;
  s.checkpoint_every_steps = 11;
  s.checkpoints_kept = 12;
  s.serve_format = "q8_0";
  const auto shown = shown_settings(s).to_json();
  const auto back = settings_from(json(shown));
  REQUIRE(back);
  CHECK(*back == s);
  // A job from before there was a choice computed in float32.
  auto older = shown;
  const std::string_view chosen = R"("precision":"f32",)";
  older.erase(older.find(chosen), chosen.size());
  const auto of_older = settings_from(json(older));
  REQUIRE(of_older);
  CHECK(*of_older == s);
  const auto usual = settled("null", "null", {100, 100});
  CHECK(*settings_from(json(shown_settings(usual).to_json())) == usual);
  CHECK(shown_hyperparameters(s).to_json() ==
        R"({"n_epochs":50,"batch_size":256,"learning_rate_multiplier":0.3333333333333333})");
}

TEST_CASE("stored settings that are not whole are refused by name") {
  value shown = shown_settings(job_settings());
  value::object fewer = *shown.if_object();
  fewer.erase(fewer.begin() + 3);
  const auto missing = settings_from(fewer);
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code == errc::bad_file);
  CHECK(missing.error().detail.find("'seed' is missing") != std::string::npos);
  shown.set("warp", 9);
  CHECK(settings_from(shown).error().detail.find("'warp'") != std::string::npos);
  CHECK_FALSE(settings_from(value()));
  value wrong = shown_settings(job_settings());
  wrong.set("rank", "auto");
  CHECK(settings_from(wrong).error().detail.find("'rank' must be") != std::string::npos);
}
