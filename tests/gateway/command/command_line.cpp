#include "gateway/command/command_line.hpp"
#include "tests/support/command_run.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <fstream>

namespace {

using namespace tandem::tests;
namespace command = tandem::gateway::command;

TEST_CASE("every command has a --help that ends with an example") {
  for (const std::string& name : command::command_names()) {
    CAPTURE(name);
    const auto run = run_command({name, "--help"});
    CHECK(run.status == 0);
    CHECK(run.err.empty());
    CHECK(run.out.find("Example:\n  ") != std::string::npos);
    CHECK(run.out.find("tandem " + name) != std::string::npos);
  }
}

TEST_CASE("tandem --help lists every command, and apart from them those of later versions") {
  const auto run = run_command({"--help"});
  CHECK(run.status == 0);
  const std::size_t later = run.out.find("Not built yet:");
  REQUIRE(later != std::string::npos);
  for (const std::string& name : command::command_names()) {
    CAPTURE(name);
    CHECK(run.out.find("\n  " + name + " ") < later);
  }
  CHECK(run.out.find("\n  unload ") > later);
}

TEST_CASE("a misspelt command or option is wrong usage, with the nearest one") {
  const auto command = run_command({"chta"});
  CHECK(command.status == 2);
  CHECK(command.out.empty());
  CHECK(command.err ==
        "tandem: unknown command chta: did you mean chat? (`tandem --help` shows "
        "what there is)\n");
  const auto option = run_command({"models", "--jsno"});
  CHECK(option.status == 2);
  CHECK(option.err ==
        "tandem: unknown option --jsno: did you mean --json? (`tandem models --help` "
        "shows what there is)\n");
  CHECK(run_command({"config", "chekc", "f"}).err.find("did you mean check?") != std::string::npos);
}

TEST_CASE("a missing or wrong argument is wrong usage and says which") {
  CHECK(run_command({}).status == 2);
  const auto missing = run_command({"tokenize"});
  CHECK(missing.status == 2);
  CHECK(missing.err.find("MODEL") != std::string::npos);
  CHECK(std::ranges::count(missing.err, '\n') == 1);
  CHECK(run_command({"config"}).status == 2);
  CHECK(run_command({"bench", "serve", "--streams", "none"}).status == 2);
  CHECK(run_command({"bench", "serve", "--streams", "0"}).status == 2);
  CHECK(run_command({"models", "--address", "ftp://x"}).status == 2);
}

TEST_CASE("a command of a later version is known and refused in one line, whatever follows it") {
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"unload", "3", "--now"}, {"load"}}) {
    const auto run = run_command(words);
    CAPTURE(words, run.err);
    CHECK(run.status == 1);
    CHECK(run.err.find("is not built yet in this version") != std::string::npos);
    CHECK(std::ranges::count(run.err, '\n') == 1);
  }
}

TEST_CASE("bench train measures full and LoRA steps of a small model") {
  const std::string model = std::string(TANDEM_GOLDEN) + "/tiny/llama_tied";
  for (const std::string& method : {std::string("full"), std::string("lora")}) {
    const auto run = run_command({"bench", "train", "--json", "--model", model, "--method", method,
                                  "--rows", "2", "--length", "16", "--steps", "1"});
    CAPTURE(method, run.err);
    CHECK(run.status == 0);
    CHECK(run.out.find("\"tokens_per_second\"") != std::string::npos);
    CHECK(run.out.find("\"method\":\"" + method + "\"") != std::string::npos);
  }
  const auto odd = run_command({"bench", "train", "--model", model, "--rows", "3"});
  CHECK(odd.status == 2);
  CHECK(odd.err.find("power of two") != std::string::npos);
}

TEST_CASE("up gives the platform the settings of file, environment and options, and its model") {
  const scratch_folder home;
  std::filesystem::create_directories(home.path() / "models");
  std::ofstream(home.path() / "models" / "tiny.gguf") << "x";
  std::ofstream(home.path() / "s.toml") << "[serve]\nmax_queued = 5\n";
  tandem::gateway::platform_options given;
  command_world world;
  world.home = home.path();
  world.environment = {{"TANDEM_SERVER_HOST", "127.0.0.9"}};
  world.run_platform = [&](const tandem::gateway::platform_options& options) {
    given = options;
    return 7;
  };
  const auto run =
      run_command({"up", "--config", (home.path() / "s.toml").string(), "--port", "0", "--model",
                   "tiny", "--devices", "cpu:0-0", "--set", "model.max_sequences=3", "--quiet"},
                  world);
  CHECK(run.err.empty());
  CHECK(run.status == 7);
  CHECK(given.quiet);
  CHECK(given.configuration.server.port == 0);
  CHECK(given.configuration.server.host == "127.0.0.9");
  CHECK(given.configuration.serve.max_queued == 5);
  CHECK(given.configuration.model.max_sequences == 3);
  CHECK(given.configuration.devices.list == std::vector<std::string>{"cpu:0-0"});
  CHECK(given.configuration.model.path == (home.path() / "models" / "tiny.gguf").string());
}

TEST_CASE("up without a model to serve says how to get one and starts nothing") {
  command_world world;
  world.run_platform = [](const tandem::gateway::platform_options&) {
    FAIL("started");
    return 0;
  };
  const auto none = run_command({"up"}, world);
  CHECK(none.status == 1);
  CHECK(none.err.find("`tandem pull REPO`") != std::string::npos);
  const auto wrong = run_command({"up", "--port", "many"}, world);
  CHECK(wrong.status == 2);
  CHECK(wrong.err == "tandem: command line: server.port: expected a whole number, got \"many\"\n");
  CHECK(
      run_command({"up", "--set", "server.prot=1"}, world).err.find("did you mean server.port?") !=
      std::string::npos);
  CHECK(run_command({"up", "--config", "/none.toml"}, world).status == 1);
}

TEST_CASE("config check says good, or the file and line that is not") {
  const scratch_folder folder;
  const std::string path = (folder.path() / "c.toml").string();
  std::ofstream(path) << "[server]\nport = 1\n";
  CHECK(run_command({"config", "check", path}).out == path + ": good\n");
  std::ofstream(path) << "[server]\nprot = 1\n";
  const auto bad = run_command({"config", "check", path});
  CHECK(bad.status == 1);
  CHECK(bad.err == "tandem: " + path + ":2: unknown key server.prot: did you mean server.port?\n");
}

TEST_CASE("config show gives each setting with its origin") {
  command_world world;
  world.environment = {{"TANDEM_SERVER_PORT", "9000"}};
  const auto run = run_command({"config", "show"}, world);
  CHECK(run.status == 0);
  CHECK(run.out.find("port = 9000") != std::string::npos);
  CHECK(run.out.find("# environment TANDEM_SERVER_PORT") != std::string::npos);
  CHECK(run_command({"config", "show", "--json"}, world).out.front() == '[');
}

TEST_CASE("version names the commit, the compiler and every library") {
  const auto run = run_command({"version"});
  CHECK(run.status == 0);
  for (const char* name : {"tandem", "commit", "compiler", "CAF", "Boost", "simdjson", "OpenSSL",
                           "PCRE2", "ICU", "libcurl"}) {
    CAPTURE(name);
    CHECK(run.out.find(name) != std::string::npos);
  }
  CHECK(run_command({"--version"}).out == run.out);
  CHECK(run_command({"version", "--json"}).out.find("\"libraries\":") != std::string::npos);
}

TEST_CASE("devices tells what was found and why it is used") {
  const auto run = run_command({"devices"});
  CHECK(run.status == 0);
  CHECK(run.out.find("no GPU: ") != std::string::npos);
  for (const char* beside : {"\nnccl    ", "\ncudnn   ", "\nnvlink  ", "\nrdma    "})
    CHECK(run.out.find(beside) != std::string::npos);
  CHECK(run.out.find("cpu:") != std::string::npos);
  const auto missing = run_command({"devices", "--devices", "cpu:0-9999"});
  CHECK(missing.status == 1);
  CHECK(std::ranges::count(missing.err, '\n') == 1);
}

}  // namespace
