#include "gateway/command/model_path.hpp"
#include "tests/support/command_run.hpp"

#include <catch2/catch.hpp>

#include <fstream>

namespace {

using tandem::gateway::command::find_model;
using tandem::gateway::command::local_models;

struct models_folder : tandem::tests::scratch_folder {
  std::filesystem::path put(const std::string& name) const {
    const auto file = path() / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << "12345";
    return file;
  }
};

TEST_CASE("models on disk are .gguf files and folders with a config.json, at any depth") {
  const models_folder models;
  models.put("a.Q4_1.gguf");
  models.put("org/name/config.json");
  models.put("org/name/model.safetensors");
  models.put("org/other/b.gguf");
  models.put("org/other/b.gguf.part");
  models.put("notes.txt");
  models.put(".download.x/c.gguf");
  const auto found = local_models(models.path());
  REQUIRE(found.size() == 3);
  CHECK(found[0].name == "a.Q4_1");
  CHECK(found[0].bytes == 5);
  CHECK(found[1].name == "org/name");
  CHECK(found[1].bytes == 10);
  CHECK(found[2].name == "org/other/b");
  CHECK(local_models(models.path() / "none").empty());
}

TEST_CASE("a model is found by path, by name, by its last part and by a beginning") {
  const models_folder models;
  const auto small = models.put("SmolLM2-135M-Instruct.Q4_1.gguf");
  const auto other = models.put("org/Qwen.gguf");
  CHECK(*find_model(small.string(), "/none") == small);
  CHECK(*find_model("SmolLM2-135M-Instruct.Q4_1", models.path()) == small);
  CHECK(*find_model("smollm2-135m-instruct.q4_1.gguf", models.path()) == small);
  CHECK(*find_model("smollm2", models.path()) == small);
  CHECK(*find_model("org/Qwen", models.path()) == other);
  CHECK(*find_model("qwen", models.path()) == other);
}

TEST_CASE("a whole name beats longer names that begin with it") {
  const models_folder models;
  const auto exact = models.put("m.gguf");
  models.put("m2.gguf");
  CHECK(*find_model("m", models.path()) == exact);
}

TEST_CASE("a name that fits several models is refused with all of them") {
  const models_folder models;
  models.put("m1.gguf");
  models.put("m2.gguf");
  const auto found = find_model("m", models.path());
  REQUIRE_FALSE(found);
  CHECK(found.error().detail == "\"m\" fits 2 models: write one of m1, m2");
}

TEST_CASE("without a name the only model is taken, or the quickstart model among several") {
  const models_folder models;
  CHECK(find_model("", models.path()).error().detail.find("tandem pull") != std::string::npos);
  const auto only = models.put("a.gguf");
  CHECK(*find_model("", models.path()) == only);
  models.put("b.gguf");
  CHECK(find_model("", models.path()).error().detail.find("a, b") != std::string::npos);
  const auto quickstart = models.put("SmolLM2-135M-Instruct.Q4_1.gguf");
  CHECK(*find_model("", models.path()) == quickstart);
}

TEST_CASE("an unknown name is refused with the nearest one") {
  const models_folder models;
  models.put("org/Mistral-7B.gguf");
  CHECK(find_model("mistarl-7b", models.path()).error().detail.find("no model \"mistarl-7b\"") ==
        0);
  CHECK(find_model("Mistarl-7B", models.path()).error().detail.find("did you mean Mistral-7B?") !=
        std::string::npos);
}

}  // namespace
