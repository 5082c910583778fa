// `tandem export` from the command line: what names mean, what is written, what is refused.
#include "runtime/text/value.hpp"
#include "tests/support/command_run.hpp"
#include "tests/train/export_world.hpp"

#include <catch2/catch.hpp>

#include <fstream>

namespace tandem::tests {
namespace {

namespace fs = std::filesystem;

const std::string job = "ftjob-0123456789abcdef01234567";

// A home with one LoRA job of two checkpoints.
struct export_home {
  export_home() : world(test::golden("tiny/llama_tied")) {
    run.home = folder.path();
    const auto checkpoints = folder.path() / "jobs" / job / "checkpoints";
    newest = world.write_lora(checkpoints);
    fs::copy(newest, checkpoints / "step-00000012x", fs::copy_options::recursive);
  }
  command_run call(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "export");
    return run_command(arguments, run);
  }
  std::string out(const char* name = "out") const { return (folder.path() / name).string(); }

  scratch_folder folder;
  command_world run;
  test::export_world world;
  fs::path newest;
};

TEST_CASE("a job is exported by its id, its ft: name, its step or its folder") {
  export_home home;
  const std::string ft = "ft:tiny:acme:facts:" + job;
  int number = 0;
  for (const std::string& name : std::vector<std::string>{
           job, ft, ft + ":ckpt-step-12", "ft:tiny:acme::0123456789abcdef01234567",
           home.newest.string(), home.newest.string() + "/", home.newest.parent_path().string(),
           home.newest.parent_path().parent_path().string()}) {
    INFO(name);
    const auto run = home.call({name, home.out() + std::to_string(number++)});
    CHECK_THAT(run.err, !Catch::Contains("tandem:"));
    CHECK(run.status == 0);
    CHECK_THAT(run.out, Catch::Contains("adapter of " + job + ", step 12 of 12"));
  }
}

TEST_CASE("export --json says where the export is and what it holds") {
  export_home home;
  const auto run = home.call({job, home.out(), "--merged", "--dtype", "bf16", "--json"});
  REQUIRE(run.status == 0);
  const auto said = text::value::from_json(run.out);
  REQUIRE(said);
  CHECK(*said->find("path") == text::value(home.out()));
  CHECK(*said->find("form") == text::value("merged"));
  CHECK(*said->find("job") == text::value(job));
  CHECK(*said->find("step") == text::value(12));
  CHECK(*said->find("files") ==
        text::value(text::value::array{"config.json", "model.safetensors"}));
}

TEST_CASE("export --gguf writes one file") {
  export_home home;
  const auto run = home.call({job, home.out(), "--gguf", "--dtype", "q8_0"});
  CHECK_THAT(run.err, !Catch::Contains("tandem:"));
  REQUIRE(run.status == 0);
  CHECK(fs::exists(home.folder.path() / "out/tiny-tuned.Q8_0.gguf"));
}

TEST_CASE("an export that makes no sense is refused with what would") {
  export_home home;
  const auto refused = [&](std::vector<std::string> arguments, int status) {
    const auto run = home.call(std::move(arguments));
    CHECK(run.status == status);
    CHECK(run.out == "");
    CHECK_FALSE(fs::exists(home.out()));
    return run.err;
  };
  CHECK_THAT(refused({job, home.out(), "--dtype", "int4"}, 2), Catch::Contains("--dtype int4"));
  CHECK_THAT(refused({job, home.out(), "--adapter", "--gguf"}, 2),
             Catch::Contains("exclude each other"));
  CHECK_THAT(refused({job, home.out(), "--merged", "--dtype", "q8_0"}, 1),
             Catch::Contains("add --gguf"));
  CHECK_THAT(refused({"ftjob-0123456789abcdef01234568", home.out()}, 1),
             Catch::Contains("did you mean " + job));
  CHECK_THAT(refused({job + ":ckpt-step-11", home.out()}, 1),
             Catch::Contains("step 11 is not kept") && Catch::Contains("step-00000012"));
  CHECK_THAT(refused({job, home.out(), "--base", "/nowhere"}, 1),
             Catch::Contains("--base PATH says where it is"));
  CHECK(refused({job}, 2) != "");
  CHECK_THAT(refused({job, home.folder.path().string()}, 1),
             Catch::Contains("not an empty folder"));
}

TEST_CASE("a broken newest checkpoint is passed over and named") {
  export_home home;
  const auto later = home.newest.parent_path() / "step-00000013";
  fs::copy(home.newest, later, fs::copy_options::recursive);
  const auto run = home.call({job, home.out()});
  CHECK(run.status == 0);
  CHECK_THAT(run.err, Catch::Contains("passed over, broken: ") && Catch::Contains("step-00000013"));
}

}  // namespace
}  // namespace tandem::tests
