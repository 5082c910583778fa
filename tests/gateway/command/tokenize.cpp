#include "runtime/text/value.hpp"
#include "tests/support/command_run.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace {

using namespace tandem;
using namespace tandem::tests;

// A tokenizer of whole words, small enough to read: a=0, b=1, unknown=2, the control token <end>=3.
constexpr const char* word_tokenizer = R"({
  "version": "1.0",
  "added_tokens": [{"id": 3, "content": "<end>", "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true}],
  "normalizer": null,
  "pre_tokenizer": {"type": "WhitespaceSplit"},
  "post_processor": null,
  "decoder": null,
  "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "?": 2}, "unk_token": "?"}
})";

struct model_folder : scratch_folder {
  model_folder() {
    std::ofstream(path() / "tokenizer.json") << word_tokenizer;
    std::ofstream(path() / "tokenizer_config.json") << R"({"eos_token": "<end>", "chat_template": [
             {"name": "tool_use", "template": "wrong one"},
             {"name": "default", "template": "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}{% if tools is not none %}tools{% endif %}"}]})";
  }
};

command_run run(const std::string& command, const std::string& model, const std::string& input) {
  command_world world;
  world.input = input;
  return run_command({command, model}, world);
}

TEST_CASE("tokenize answers each text with its ids and each ids with their text") {
  const model_folder model;
  const auto done = run("tokenize", model.path().string(),
                        "{\"text\": \"a b a\"}\n\n{\"text\": \"zebra\"}\n{\"ids\": [0, 1]}\n");
  CHECK(done.err.empty());
  CHECK(done.status == 0);
  CHECK(done.out == "{\"ids\":[0,1,0]}\n{\"ids\":[2]}\n{\"text\":\"a b\"}\n");
}

TEST_CASE("control tokens in a text are read as such unless the line says otherwise") {
  const model_folder model;
  CHECK(run("tokenize", model.path().string(), "{\"text\": \"a <end>\"}").out ==
        "{\"ids\":[0,3]}\n");
  CHECK(run("tokenize", model.path().string(), "{\"text\": \"a <end>\", \"parse_special\": false}")
            .out == "{\"ids\":[0,2]}\n");
}

TEST_CASE("a bad line is answered with an error, the others with ids, and the end is status 1") {
  const model_folder model;
  const auto done = run("tokenize", model.path().string(),
                        "{\"text\": \"a\"}\nnot json\n{\"text\": 5}\n[]\n{\"ids\": [99]}\n"
                        "{\"text\": \"a\", \"parse_special\": 1}\n{\"text\": \"b\"}\n");
  CHECK(done.status == 1);
  std::istringstream lines(done.out);
  std::vector<std::string> all;
  for (std::string line; std::getline(lines, line);) all.push_back(line);
  REQUIRE(all.size() == 7);
  CHECK(all[0] == "{\"ids\":[0]}");
  CHECK(all[1].find("{\"error\":\"line 2: not valid JSON") == 0);
  CHECK(all[2].find("{\"error\":") == 0);
  CHECK(all[3] == "{\"error\":\"line 4: not a JSON object\"}");
  CHECK(all[4].find("99 is no token id") != std::string::npos);
  CHECK(all[5].find("must be true or false") != std::string::npos);
  CHECK(all[6] == "{\"ids\":[1]}");
}

TEST_CASE("a model that is not there, and a file that is none, are refused in one line") {
  const auto missing = run("tokenize", "nothing-like-it", "");
  CHECK(missing.status == 1);
  CHECK(missing.err.find("no model \"nothing-like-it\"") != std::string::npos);
  const scratch_folder folder;
  const std::string broken = (folder.path() / "broken.gguf").string();
  std::ofstream(broken) << "GGUF but no more";
  for (const char* command : {"tokenize", "render"}) {
    const auto refused = run(command, broken, "{\"text\": \"a\"}\n");
    CHECK(refused.status == 1);
    CHECK(refused.out.empty());
    CHECK(refused.err.find(broken) != std::string::npos);
    CHECK(std::ranges::count(refused.err, '\n') == 1);
  }
}

TEST_CASE("render uses the model's default template, its end token, and no tools unless given") {
  const model_folder model;
  const auto done = run("render", model.path().string(),
                        "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}\n"
                        "{\"messages\": [], \"tools\": [{}]}\n");
  CHECK(done.err.empty());
  CHECK(done.status == 0);
  CHECK(done.out == "{\"text\":\"Hi<end>\"}\n{\"text\":\"tools\"}\n");
}

TEST_CASE("render of a template's refusal is an answer about that line, not a failure") {
  const scratch_folder folder;
  const std::string path = (folder.path() / "t.jinja").string();
  std::ofstream(path) << "{% if messages|length == 0 %}{{ raise_exception('empty') }}{% endif %}"
                         "{{ messages[0].content }}";
  const auto done =
      run("render", path, "{\"messages\": []}\n{\"messages\": [{\"content\": \"x\"}]}\n");
  CHECK(done.status == 0);
  CHECK(done.out.find("{\"error\":\"") == 0);
  CHECK(done.out.find("empty") != std::string::npos);
  CHECK(done.out.find("{\"text\":\"x\"}\n") != std::string::npos);
  CHECK(run("render", path, "nonsense\n").status == 1);
}

TEST_CASE("render prints the date of SOURCE_DATE_EPOCH where it is set") {
  const scratch_folder folder;
  const std::string path = (folder.path() / "t.jinja").string();
  std::ofstream(path) << "{{ strftime_now('%Y') }}";
  command_world world;
  world.input = "{}\n";
  world.environment = {{"SOURCE_DATE_EPOCH", "86400000"}};
  CHECK(run_command({"render", path}, world).out == "{\"text\":\"1972\"}\n");
  world.environment = {{"SOURCE_DATE_EPOCH", "soon"}};
  CHECK(run_command({"render", path}, world).status == 1);
}

TEST_CASE("a template that does not compile is refused with its file") {
  const scratch_folder folder;
  const std::string path = (folder.path() / "t.jinja").string();
  std::ofstream(path) << "{% for %}";
  const auto done = run("render", path, "{}\n");
  CHECK(done.status == 1);
  CHECK(done.err.find("tandem: " + path) == 0);
  CHECK(run("render", (folder.path() / "none.jinja").string(), "").status == 1);
}

}  // namespace
