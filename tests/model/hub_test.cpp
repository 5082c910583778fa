#include "runtime/model/hub.hpp"

#include "tests/support/hub_server.hpp"
#include "tests/support/temporary_folder.hpp"

#include <openssl/evp.h>
#include <catch2/catch.hpp>

#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

using namespace tandem;
using namespace tandem::model;
using tandem::test::file_reply;
using tandem::test::hub_reply;
using tandem::test::hub_request;
using tandem::test::hub_server;
using tandem::test::temporary_folder;

namespace fs = std::filesystem;

namespace {

std::string hex_digest(const std::string& bytes, const EVP_MD* kind) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_Digest(bytes.data(), bytes.size(), digest, &size, kind, nullptr);
  std::string text;
  for (unsigned int i = 0; i < size; ++i)
    text += {"0123456789abcdef"[digest[i] >> 4], "0123456789abcdef"[digest[i] & 15]};
  return text;
}

const std::string weights = [] {
  std::string bytes;
  for (int i = 0; i < 200'000; ++i) bytes += static_cast<char>(i * 7 + i / 251);
  return bytes;
}();
const std::string config = R"({"model_type":"llama"})";
const std::string config_blob =
    hex_digest("blob " + std::to_string(config.size()) + '\0' + config, EVP_sha1());

std::string listing(const std::string& sha256 = hex_digest(weights, EVP_sha256()),
                    const std::string& blob = config_blob) {
  return R"({"siblings":[{"rfilename":"README.md","size":3},{"rfilename":"config.json","size":)" +
         std::to_string(config.size()) + R"(,"blobId":")" + blob +
         R"("},{"rfilename":"model.safetensors","size":)" + std::to_string(weights.size()) +
         R"(,"lfs":{"sha256":")" + sha256 + R"(","size":)" + std::to_string(weights.size()) +
         "}}]}";
}

constexpr auto listing_path = "/api/models/org/name/revision/main?blobs=true";
constexpr auto weights_path = "/org/name/resolve/main/model.safetensors";
constexpr auto config_path = "/org/name/resolve/main/config.json";

hub_reply good_answer(const hub_request& request) {
  if (request.path == listing_path) return {200, listing(), {}, std::nullopt};
  if (request.path == weights_path) return file_reply(request, weights, "\"v1\"");
  if (request.path == config_path) return file_reply(request, config, "\"c1\"");
  return {404, "not here", {}, std::nullopt};
}

// A pull into a folder of its own, which does not sleep.
struct pull_world {
  explicit pull_world(std::function<hub_reply(const hub_request&)> answer)
      : server(std::move(answer)) {
    ::setenv("no_proxy", "127.0.0.1", 1);
    options.endpoint = server.address();
    options.models = folder.path();
    options.wait = [this](std::chrono::milliseconds pause) { pauses.push_back(pause.count()); };
  }
  std::string read(const std::string& name) const {
    std::ifstream file(folder.path() / "org/name" / name, std::ios::binary);
    std::stringstream bytes;
    bytes << file.rdbuf();
    return bytes.str();
  }
  bool has(const std::string& name) const { return fs::exists(folder.path() / "org/name" / name); }
  void leave_part(const std::string& bytes, const std::string& etag) const {
    fs::create_directories(folder.path() / "org/name");
    std::ofstream(folder.path() / "org/name/model.safetensors.part") << bytes;
    std::ofstream(folder.path() / "org/name/model.safetensors.part.etag") << etag;
  }
  std::size_t count(const std::string& path) const {
    std::size_t found = 0;
    for (const auto& request : server.requests())
      if (request.path == path) ++found;
    return found;
  }
  result<fs::path> pull() { return model::pull("org/name", options); }

  temporary_folder folder;
  hub_server server;
  hub_options options;
  std::vector<std::int64_t> pauses;
};

bool says(const error& why, std::string_view part) {
  INFO(why.detail);
  CHECK(why.detail.find(part) != std::string::npos);
  return why.detail.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a pull brings what the model needs and tells how far it is") {
  pull_world world(good_answer);
  std::vector<hub_progress> seen;
  world.options.progress = [&](const hub_progress& now) { seen.push_back(now); };
  auto folder = world.pull();
  REQUIRE(folder);
  CHECK(*folder == world.folder.path() / "org/name");
  CHECK(world.read("model.safetensors") == weights);
  CHECK(world.read("config.json") == config);
  CHECK_FALSE(world.has("README.md"));
  CHECK_FALSE(world.has("model.safetensors.part"));
  CHECK_FALSE(world.has("model.safetensors.part.etag"));
  REQUIRE_FALSE(seen.empty());
  CHECK(seen.back().bytes_done == weights.size() + config.size());
  CHECK(seen.back().bytes_total == weights.size() + config.size());
  CHECK(seen.back().files_done == 2);
  CHECK(seen.back().files == 2);
}

TEST_CASE("a second pull fetches nothing again") {
  pull_world world(good_answer);
  REQUIRE(world.pull());
  REQUIRE(world.pull());
  CHECK(world.count(weights_path) == 1);
  CHECK(world.count(config_path) == 1);
}

TEST_CASE("a file that was changed on the hub is fetched again") {
  pull_world world(good_answer);
  REQUIRE(world.pull());
  std::ofstream(world.folder.path() / "org/name/config.json") << std::string(config.size(), 'x');
  REQUIRE(world.pull());
  CHECK(world.read("config.json") == config);
  CHECK(world.count(weights_path) == 1);
}

TEST_CASE("one file of a repository is pulled by its name and its path is given") {
  pull_world world(good_answer);
  auto path = pull("org/name:config.json", world.options);
  REQUIRE(path);
  CHECK(*path == world.folder.path() / "org/name/config.json");
  CHECK(world.count(weights_path) == 0);
}

TEST_CASE("a cut connection is continued where it ended") {
  std::atomic<int> asked{0};
  pull_world world([&](const hub_request& request) {
    auto reply = good_answer(request);
    if (request.path == weights_path && asked++ < 3) reply.cut_after = 50'000;
    return reply;
  });
  REQUIRE(world.pull());
  CHECK(world.read("model.safetensors") == weights);
  CHECK(world.count(weights_path) == 4);
  auto last = world.server.requests().back();
  CHECK(last.header("range") == "bytes=150000-");
  CHECK(last.header("if-range") == "\"v1\"");
  CHECK(world.pauses.size() == 3);
}

TEST_CASE("an interrupted pull is continued by the next") {
  pull_world world(good_answer);
  world.leave_part(weights.substr(0, 120'000), "\"v1\"");
  REQUIRE(world.pull());
  CHECK(world.server.requests().back().header("range") == "bytes=120000-");
  CHECK(world.read("model.safetensors") == weights);
}

TEST_CASE("a part of another version of the file is begun anew") {
  pull_world world(good_answer);
  world.leave_part(std::string(120'000, 'x'), "\"v0\"");
  REQUIRE(world.pull());
  CHECK(world.count(weights_path) == 1);
  CHECK(world.read("model.safetensors") == weights);
}

TEST_CASE("a wrong part without a version is found out by its checksum and begun anew") {
  pull_world world(good_answer);
  world.leave_part(std::string(120'000, 'x'), "");
  REQUIRE(world.pull());
  CHECK(world.count(weights_path) == 2);
  CHECK(world.read("model.safetensors") == weights);
}

TEST_CASE("a part longer than the file is begun anew") {
  pull_world world(good_answer);
  world.leave_part(weights + "and more", "\"v1\"");
  REQUIRE(world.pull());
  CHECK(world.read("model.safetensors") == weights);
}

TEST_CASE("a wrong checksum is refused and what was fetched is removed") {
  pull_world world([](const hub_request& request) {
    if (request.path == listing_path) return hub_reply{200, listing(std::string(64, '0')), {}, {}};
    return good_answer(request);
  });
  auto pulled = world.pull();
  REQUIRE_FALSE(pulled);
  CHECK(pulled.error().code == errc::bad_file);
  CHECK(says(pulled.error(), "model.safetensors has sha256"));
  CHECK_FALSE(world.has("model.safetensors"));
  CHECK_FALSE(world.has("model.safetensors.part"));
  CHECK(world.count(weights_path) == 1);
}

TEST_CASE("a small file is checked by its git blob") {
  pull_world world([](const hub_request& request) {
    if (request.path != listing_path) return good_answer(request);
    return hub_reply{200, listing(hex_digest(weights, EVP_sha256()), std::string(40, 'a')), {}, {}};
  });
  auto pulled = world.pull();
  REQUIRE_FALSE(pulled);
  CHECK(says(pulled.error(), "config.json has git blob"));
}

TEST_CASE("a body longer than the hub announced is cut off and removed") {
  pull_world world([](const hub_request& request) {
    auto reply = good_answer(request);
    if (request.path == weights_path) reply.body += "more";
    return reply;
  });
  auto pulled = world.pull();
  REQUIRE_FALSE(pulled);
  CHECK(says(pulled.error(), "longer than"));
  CHECK_FALSE(world.has("model.safetensors.part"));
}

TEST_CASE("a gated repository says what to do") {
  pull_world world([](const hub_request&) { return hub_reply{401, "{}", {}, {}}; });
  auto pulled = world.pull();
  REQUIRE_FALSE(pulled);
  CHECK(pulled.error().code == errc::unauthorized);
  CHECK(says(pulled.error(), "set HF_TOKEN"));
  CHECK(world.server.requests().size() == 1);

  pull_world forbidden([](const hub_request& request) {
    return request.path == listing_path ? good_answer(request) : hub_reply{403, "no", {}, {}};
  });
  forbidden.options.token = "secret";
  auto refused = forbidden.pull();
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::forbidden);
  CHECK(says(refused.error(), "with the account of HF_TOKEN"));
  CHECK(forbidden.server.requests()[0].header("authorization") == "Bearer secret");
}

TEST_CASE("a repository that is not there is named with similar ones") {
  pull_world world([](const hub_request& request) {
    if (request.path.starts_with("/api/models?"))
      return hub_reply{200, R"([{"id":"org/nama"},{"id":"org/names"}])", {}, {}};
    return hub_reply{404, "{}", {}, {}};
  });
  auto pulled = world.pull();
  REQUIRE_FALSE(pulled);
  CHECK(pulled.error().code == errc::not_found);
  CHECK(says(pulled.error(), "similar: org/nama, org/names"));
}

TEST_CASE("a file that is not there is named with the nearest") {
  pull_world world(good_answer);
  auto pulled = pull("org/name:conf.json", world.options);
  REQUIRE_FALSE(pulled);
  CHECK(pulled.error().code == errc::not_found);
  CHECK(says(pulled.error(), "the nearest are config.json"));
}

TEST_CASE("the token follows no redirect to another host") {
  hub_server elsewhere([](const hub_request& request) {
    return request.path == "/cdn/weights" ? file_reply(request, weights, "\"cdn\"")
                                          : hub_reply{404, {}, {}, {}};
  });
  pull_world world([&](const hub_request& request) {
    if (request.path == weights_path)
      return hub_reply{302, "moved", {"Location: " + elsewhere.address() + "/cdn/weights"}, {}};
    return good_answer(request);
  });
  world.options.token = "secret";
  REQUIRE(world.pull());
  CHECK(world.read("model.safetensors") == weights);
  CHECK(world.server.requests().back().header("authorization") == "Bearer secret");
  REQUIRE(elsewhere.requests().size() == 1);
  CHECK(elsewhere.requests()[0].header("authorization").empty());
}

TEST_CASE("a redirect to anything but http is refused, and an endless one ends") {
  for (std::string location : {"file:///etc/passwd", "ftp://127.0.0.1/x", weights_path}) {
    INFO(location);
    pull_world world([&](const hub_request& request) {
      if (request.path == weights_path) return hub_reply{302, {}, {"Location: " + location}, {}};
      return good_answer(request);
    });
    world.options.attempts = 1;
    auto pulled = world.pull();
    REQUIRE_FALSE(pulled);
    CHECK(pulled.error().code == errc::io);
    CHECK_FALSE(world.has("model.safetensors"));
  }
}

TEST_CASE("a hub in trouble is asked again, ever more slowly, and not for ever") {
  pull_world world([](const hub_request&) { return hub_reply{503, "busy", {}, {}}; });
  auto pulled = world.pull();
  REQUIRE_FALSE(pulled);
  CHECK(says(pulled.error(), "status 503"));
  CHECK(world.server.requests().size() == 5);
  CHECK(world.pauses == std::vector<std::int64_t>{1000, 2000, 4000, 8000});
}

TEST_CASE("a hub that asks for a pause gets it") {
  std::atomic<int> asked{0};
  pull_world world([&](const hub_request& request) {
    if (asked++ == 0) return hub_reply{429, "slow down", {"Retry-After: 7"}, {}};
    return good_answer(request);
  });
  REQUIRE(world.pull());
  CHECK(world.pauses == std::vector<std::int64_t>{7000});
}

TEST_CASE("no hub at all is said in one line") {
  std::string gone;
  {
    hub_server server([](const hub_request&) { return hub_reply{}; });
    gone = server.address();
  }
  pull_world world(good_answer);
  world.options.endpoint = gone;
  auto pulled = world.pull();
  REQUIRE_FALSE(pulled);
  CHECK(pulled.error().code == errc::io);
  CHECK(pulled.error().detail.find('\n') == std::string::npos);
  world.options.endpoint = "ftp://x";
  CHECK_FALSE(world.pull());
  world.options.endpoint = world.server.address() + "/";
  CHECK(world.pull());
}

TEST_CASE("a cancelled pull keeps what it has for the next") {
  pull_world world(good_answer);
  bool stop = false;
  world.options.progress = [&](const hub_progress& now) { stop = now.bytes_done > 50'000; };
  world.options.cancelled = [&] { return stop; };
  auto pulled = world.pull();
  REQUIRE_FALSE(pulled);
  CHECK(pulled.error().code == errc::cancelled);
  world.options.cancelled = nullptr;
  REQUIRE(world.pull());
  CHECK(world.read("model.safetensors") == weights);
}

TEST_CASE("two pulls of one file do not write over one another") {
  pull_world world(good_answer);
  std::optional<error> second;
  world.options.progress = [&](const hub_progress& now) {
    if (second || now.file != "model.safetensors" || now.files_done == 2) return;
    hub_options other = world.options;
    other.progress = nullptr;
    second = error{};  // only once
    // The server answers one connection at a time, so the other hub is one of its own.
    hub_server mirror(good_answer);
    other.endpoint = mirror.address();
    auto pulled = model::pull("org/name:model.safetensors", other);
    if (!pulled) second = pulled.error();
  };
  REQUIRE(world.pull());
  REQUIRE(second);
  CHECK(second->code == errc::conflict);
}

TEST_CASE("a model larger than the disk is refused before anything is fetched") {
  pull_world world([](const hub_request& request) {
    if (request.path != listing_path) return good_answer(request);
    return hub_reply{
        200, R"({"siblings":[{"rfilename":"m.gguf","size":9000000000000000000}]})", {}, {}};
  });
  auto pulled = world.pull();
  REQUIRE_FALSE(pulled);
  CHECK(says(pulled.error(), "make room"));
  CHECK(world.server.requests().size() == 1);
}

TEST_CASE("the environment names the hub and the token") {
  ::setenv("HF_ENDPOINT", "http://mirror", 1);
  ::setenv("HF_TOKEN", "t", 1);
  auto options = hub_options::from_environment("/models");
  ::unsetenv("HF_ENDPOINT");
  ::unsetenv("HF_TOKEN");
  CHECK(options.endpoint == "http://mirror");
  CHECK(options.token == "t");
  CHECK(hub_options::from_environment("/models").endpoint == "https://huggingface.co");
}
