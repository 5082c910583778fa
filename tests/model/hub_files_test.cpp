#include "runtime/model/hub_files.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::model;

namespace {

std::vector<hub_file> files(std::initializer_list<const char*> names) {
  std::vector<hub_file> all;
  for (const char* name : names) all.push_back({name, 1, {}, {}});
  return all;
}

std::string chosen(const std::vector<hub_file>& all, const std::string& file = {}) {
  auto picked = choose_files(all, {"org/name", file});
  if (!picked) return "refused: " + picked.error().detail;
  std::string names;
  for (const hub_file& f : *picked) names += (names.empty() ? "" : " ") + f.name;
  return names;
}

bool says(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a reference is a repository and perhaps a file") {
  CHECK(*parse_reference("org/name") == hub_reference{"org/name", ""});
  CHECK(*parse_reference("org/na.me-1_2:Q4_K_M") == hub_reference{"org/na.me-1_2", "Q4_K_M"});
  CHECK(*parse_reference("gpt2:sub/model.gguf") == hub_reference{"gpt2", "sub/model.gguf"});
}

TEST_CASE("a reference that could leave the models folder is refused") {
  for (auto what : {"", "/", "org/", "/name", "../name", "org/..", "a/b/c", "org/na me", "org/n%61",
                    "org/name:", "org/name:/etc/passwd", "org/name:../x", "org/name:a/../b",
                    "org/name:a\\b", "org/a..b", ".", "..", "org/name:a//b", "http://x/y"}) {
    INFO(what);
    CHECK_FALSE(parse_reference(what));
  }
}

TEST_CASE("a listing gives sizes and checksums where the hub knows them") {
  auto listed = parse_listing(R"({"id":"o/n","siblings":[
    {"rfilename":"config.json","size":5,"blobId":"AB12"},
    {"rfilename":"model.safetensors","size":9,"blobId":"cd","lfs":{"sha256":"FF00","size":10}},
    {"rfilename":"x"}]})");
  REQUIRE(listed);
  CHECK((*listed)[0] == hub_file{"config.json", 5, "", "ab12"});
  CHECK((*listed)[1] == hub_file{"model.safetensors", 10, "ff00", ""});
  CHECK((*listed)[2] == hub_file{"x", std::nullopt, "", ""});
  CHECK_FALSE(parse_listing("{"));
  CHECK_FALSE(parse_listing("{}"));
  CHECK_FALSE(parse_listing("[]"));
  CHECK_FALSE(parse_listing(R"({"siblings":[{}]})"));
  CHECK_FALSE(parse_listing(R"({"siblings":[{"rfilename":3}]})"));
}

TEST_CASE("a safetensors model comes with its settings and tokenizer and nothing else") {
  CHECK(chosen(files({"README.md", "model-00001-of-00002.safetensors", "config.json", "x.gguf",
                      "model-00002-of-00002.safetensors", "model.safetensors.index.json",
                      "tokenizer.json", "chat_template.jinja", "consolidated.safetensors",
                      "onnx/model.onnx", "pytorch_model.bin", "sub/model.safetensors"})) ==
        "config.json model.safetensors.index.json tokenizer.json chat_template.jinja "
        "model-00001-of-00002.safetensors model-00002-of-00002.safetensors");
}

TEST_CASE("of GGUF files the only one is taken, else Q4_K_M, else all are named") {
  CHECK(chosen(files({"README.md", "m-Q8_0.gguf", "mmproj-m-f16.gguf"})) == "m-Q8_0.gguf");
  CHECK(chosen(files({"m-Q8_0.gguf", "m-IQ4_K_M.gguf", "m.q4_k_m.gguf"})) == "m.q4_k_m.gguf");
  auto many = chosen(files({"m-Q8_0.gguf", "m-Q2_K.gguf"}));
  CHECK(says(many, "m-Q2_K.gguf, m-Q8_0.gguf"));
  CHECK(says(chosen(files({"README.md"})), "neither safetensors nor GGUF"));
}

TEST_CASE("a file is named in full or by the end of its name") {
  auto all = files({"m-Q8_0.gguf", "m-Q4_0.gguf", "m-IQ4_0.gguf", "tiny-f16-00002-of-00002.gguf",
                    "tiny-f16-00001-of-00002.gguf", "config.json", "model.safetensors"});
  CHECK(chosen(all, "m-Q4_0.gguf") == "m-Q4_0.gguf");
  CHECK(chosen(all, "q4_0") == "m-Q4_0.gguf");
  CHECK(chosen(all, "Q8_0.gguf") == "m-Q8_0.gguf");
  CHECK(chosen(all, "config.json") == "config.json");
  CHECK(chosen(all, "f16") == "tiny-f16-00001-of-00002.gguf tiny-f16-00002-of-00002.gguf");
  CHECK(chosen(all, "tiny-f16-00002-of-00002.gguf") ==
        "tiny-f16-00001-of-00002.gguf tiny-f16-00002-of-00002.gguf");
  CHECK(says(chosen(all, "m-Q8_1.gguf"), "the nearest are m-Q8_0.gguf"));
  CHECK(says(chosen(files({"a-Q4_0.gguf", "b-Q4_0.gguf"}), "Q4_0"), "2 files"));
}

TEST_CASE("a hub that names a file outside the folder is refused") {
  for (auto name : {"../model.safetensors", "/etc/model.gguf", "a/../../b.gguf", "a\\b.gguf",
                    "a//b.gguf", "./m.gguf", "m\n.gguf"}) {
    INFO(name);
    auto all = files({name});
    CHECK_FALSE(choose_files(all, {"org/name", name}));
    if (std::string_view(name).ends_with(".gguf")) CHECK_FALSE(choose_files(all, {"org/name", ""}));
  }
}
