#include "runtime/settings.hpp"

#include <catch2/catch.hpp>

#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace {

using tandem::load_settings;
using pairs = std::vector<std::pair<std::string, std::string>>;

// A settings file that lives as long as the test.
class settings_file {
 public:
  explicit settings_file(std::string_view text)
      : path_(std::filesystem::temp_directory_path() /
              ("tandem_settings_" + std::to_string(::getpid()) + ".toml")) {
    std::ofstream(path_) << text;
  }
  ~settings_file() { std::filesystem::remove(path_); }
  settings_file(const settings_file&) = delete;
  settings_file& operator=(const settings_file&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string line(int number) const { return path_.string() + ":" + std::to_string(number); }

 private:
  std::filesystem::path path_;
};

std::string refusal(std::string_view text) {
  const settings_file file(text);
  const auto loaded = load_settings(file.path(), {}, {});
  REQUIRE_FALSE(loaded);
  const std::string prefix = file.path().string();
  REQUIRE(loaded.error().detail.starts_with(prefix));
  return loaded.error().detail.substr(prefix.size() + 1);
}

TEST_CASE("without file, environment or options every setting is its default") {
  const auto loaded = load_settings({}, {}, {});
  REQUIRE(loaded);
  CHECK(loaded->server.port == 8000);
  CHECK(loaded->origins.find("server.port")->second == "default");
  CHECK(loaded->origins.size() >= 35);
}

TEST_CASE("the command line beats the environment, which beats the file, which beats the default") {
  const settings_file file("[server]\nport = 1001\nhost = \"::1\"\nthreads = 2\n");
  const pairs environment = {{"TANDEM_SERVER_PORT", "1002"}, {"TANDEM_SERVER_HOST", "127.0.0.2"}};
  const auto loaded = load_settings(file.path(), environment, {{"server.port", "1003"}});
  REQUIRE(loaded);
  CHECK(loaded->server.port == 1003);
  CHECK(loaded->server.host == "127.0.0.2");
  CHECK(loaded->server.threads == 2);
  CHECK(loaded->origins.find("server.port")->second == "command line");
  CHECK(loaded->origins.find("server.host")->second == "environment TANDEM_SERVER_HOST");
  CHECK(loaded->origins.find("server.threads")->second == "file " + file.line(4));
  CHECK(loaded->origins.find("server.heartbeat_ms")->second == "default");
}

TEST_CASE("each kind of value is read from a file") {
  const settings_file file(
      "model = { path = \"m.gguf\", context_length = 4096, kv_memory = \"1GiB\" }\n"
      "devices.list = [\"cpu:0-0\", \"cpu:1-1\"]\n"
      "devices.memory_fraction = 0.25\n"
      "[serve]\nprefix_cache = false\n");
  const auto loaded = load_settings(file.path(), {}, {});
  REQUIRE(loaded);
  CHECK(loaded->model.path == "m.gguf");
  CHECK(loaded->model.context_length == 4096);
  CHECK(loaded->devices.list == std::vector<std::string>{"cpu:0-0", "cpu:1-1"});
  CHECK(loaded->devices.memory_fraction == 0.25);
  CHECK_FALSE(loaded->serve.prefix_cache);
}

TEST_CASE("a misspelt key is refused with its file, its line and the nearest known key") {
  CHECK(refusal("[server]\n\nprot = 8001\n") ==
        "3: unknown key server.prot: did you mean server.port?");
  CHECK(refusal("[serve]\nprefixcache = true\n") ==
        "2: unknown key serve.prefixcache: did you mean serve.prefix_cache?");
}

TEST_CASE("a key in the wrong section is shown its right one") {
  CHECK(refusal("[serve]\nmax_sequences = 4\n") ==
        "2: unknown key serve.max_sequences: did you mean model.max_sequences?");
}

TEST_CASE("an unknown section is refused with the nearest one") {
  CHECK(refusal("[sever]\nport = 1\n") == "1: unknown section [sever]: did you mean [server]?");
  CHECK(refusal("[zzzzzzzz]\n") == "1: unknown section [zzzzzzzz]: `tandem config show` lists all");
  CHECK(refusal("server = 5\n") == "1: server is a section: write [server]");
}

TEST_CASE("a section of a later version is refused as not built, not as unknown") {
  CHECK(refusal("[trace]\nfile = \"x\"\n") ==
        "1: [trace] is not built yet in this version: remove it");
  CHECK(refusal("[train]\ncheckpoint_every = 2\n").find("checkpoint_every_steps") !=
        std::string::npos);
  CHECK(refusal("[server]\nadmin_port = 9000\n") ==
        "2: server.admin_port: not built yet: the admin plane answers on server.port; remove the "
        "key");
}

TEST_CASE("how processes and machines speak to each other has its settings") {
  const settings_file file(
      "[cluster]\nlisten = \"0.0.0.0:7000\"\nadvertise = \"10.0.0.1:7000\"\n"
      "secret_file = \"/etc/tandem/secret\"\nheartbeat_ms = 250\ncache_bytes = \"64GB\"\n"
      "[devices]\nisolation = \"none\"\n");
  const auto loaded = load_settings(file.path(), {}, {});
  REQUIRE(loaded);
  CHECK(loaded->cluster.listen == "0.0.0.0:7000");
  CHECK(loaded->cluster.advertise == "10.0.0.1:7000");
  CHECK(loaded->cluster.secret_file == "/etc/tandem/secret");
  CHECK(loaded->cluster.heartbeat_ms == 250);
  CHECK(loaded->cluster.cache_bytes == "64GB");
  CHECK(refusal("[cluster]\ncache_bytes = \"much\"\n").find("512MiB") != std::string::npos);
  CHECK(refusal("[cluster]\ncache_bytes = \"auto\"\n").find("512MiB") != std::string::npos);
  CHECK(loaded->devices.isolation == "none");
  CHECK(load_settings({}, {}, {})->devices.isolation == "process");
  CHECK(refusal("[cluster]\nheartbeat_ms = 0\n").find("10") != std::string::npos);
  CHECK(refusal("[devices]\nisolation = \"thread\"\n").find("none, process") != std::string::npos);
}

TEST_CASE("how devices are shared has its settings, each with its bounds") {
  const auto loaded = load_settings({}, {{"TANDEM_SHARE_POLICY", "train_first"}},
                                    {{"share.min_serve_devices", "2"},
                                     {"share.cooldown_ms", "0"},
                                     {"serve.ttft_target_ms", "250"},
                                     {"serve.itl_target_ms", "40"}});
  REQUIRE(loaded);
  CHECK(loaded->share.policy == "train_first");
  CHECK(loaded->share.min_serve_devices == 2);
  CHECK(loaded->share.max_train_devices == 0);
  CHECK(loaded->share.cooldown_ms == 0);
  CHECK(loaded->serve.ttft_target_ms == 250);
  CHECK(loaded->serve.itl_target_ms == 40);
  CHECK(tandem::show_settings(*loaded).find("policy = \"train_first\"") != std::string::npos);
  CHECK(refusal("[share]\npolicy = \"auto\"\n") ==
        "2: share.policy: unknown value \"auto\": give one of latency_first, train_first, fixed");
  CHECK(refusal("[share]\nmin_serve_devices = 0\n") ==
        "2: share.min_serve_devices: 0 is out of range: give 1 to 1048576");
  CHECK(refusal("[serve]\nttft_target_ms = 0\n").find("out of range") != std::string::npos);
  CHECK(refusal("[share]\npolicy = 3\n").find("expected text in quotes") != std::string::npos);
}

TEST_CASE("slots are a power of two") {
  CHECK(refusal("[train]\nslots = 3\n") ==
        "2: train.slots: 3 is no power of two: give 1, 2, 4, 8, …");
  CHECK(refusal("[train]\nslots = 0\n").find("out of range") != std::string::npos);
}

TEST_CASE("a store is a folder or a PostgreSQL database; anything else is refused") {
  CHECK(refusal("[store]\nurl = \"mysql://u:secret@host/db\"\n").find("secret") ==
        std::string::npos);
  CHECK(*tandem::store_folder({"postgresql://host/db"}) == tandem::tandem_home() / "store");
  CHECK(*tandem::store_folder({"postgres://"}) == tandem::tandem_home() / "store");
  CHECK(refusal("[store]\nurl = \"/var/lib/tandem\"\n").find("give \"sqlite:FOLDER\"") !=
        std::string::npos);
  CHECK(refusal("[store]\nurl = \"sqlite:\"\n").find("names no store") != std::string::npos);
  CHECK(*tandem::store_folder({"sqlite:/var/lib/tandem"}) == "/var/lib/tandem");
  CHECK(*tandem::store_folder({"sqlite:///var/lib/tandem"}) == "/var/lib/tandem");
  CHECK(*tandem::store_folder({"sqlite:here"}) == "here");
  CHECK(*tandem::store_folder({}) == tandem::tandem_home() / "store");
  CHECK(tandem::jobs_folder({}) == tandem::tandem_home() / "jobs");
}

TEST_CASE("a wrong type is refused with the line and what was expected") {
  CHECK(refusal("[server]\nport = \"8000\"\n") == "2: server.port: expected a whole number");
  CHECK(refusal("[server]\nport = 80.5\n") == "2: server.port: expected a whole number");
  CHECK(refusal("[server]\nhost = 1\n") == "2: server.host: expected text in quotes");
  CHECK(refusal("[serve]\nprefix_cache = 1\n") == "2: serve.prefix_cache: expected true or false");
  CHECK(refusal("[devices]\nlist = [1]\n") ==
        "2: devices.list: expected a list of texts, [\"a\", \"b\"]");
  CHECK(refusal("[devices]\nmemory_fraction = nan\n") ==
        "2: devices.memory_fraction: expected a finite number");
}

TEST_CASE("a value out of its bounds is refused with the bounds") {
  CHECK(refusal("[server]\nport = 70000\n") ==
        "2: server.port: 70000 is out of range: give 0 to 65535");
  CHECK(refusal("[devices]\nmemory_fraction = 1.5\n") ==
        "2: devices.memory_fraction: 1.5 is out of range: give 0.01 to 0.95");
  CHECK(refusal("[model]\nformat = \"q3\"\n") ==
        "2: model.format: unknown value \"q3\": give one of native, f32, bf16, fp8, q8_0, q4_1, "
        "dummy");
  CHECK(refusal("[model]\nkv_memory = \"lots\"\n").find("is no size in bytes") !=
        std::string::npos);
}

TEST_CASE("a file that is no TOML is refused with its line") {
  CHECK(refusal("[server]\nport = \n").find("2: not valid TOML: ") == 0);
  CHECK(refusal("[server]\nport = 1\nport = 2\n").find("3: not valid TOML: ") == 0);
}

TEST_CASE("a settings file that is missing, or a folder, is refused by its name") {
  for (const char* path : {"/nowhere/tandem.toml", "/tmp"}) {
    const auto loaded = load_settings(path, {}, {});
    REQUIRE_FALSE(loaded);
    CHECK(loaded.error().code == tandem::errc::not_found);
    CHECK(loaded.error().detail.find(path) == 0);
  }
}

TEST_CASE("a certificate without its key is refused") {
  CHECK(load_settings({}, {}, {{"server.tls_cert", "c.pem"}}).error().detail ==
        "command line: server.tls_cert needs server.tls_key as well");
  CHECK(load_settings({}, {}, {{"server.tls_cert", "c.pem"}, {"server.tls_key", "k.pem"}}));
}

TEST_CASE("the environment gives lists with commas, numbers and flags") {
  const auto loaded = load_settings({},
                                    {{"TANDEM_DEVICES_LIST", "cpu:0-0, cpu:1-1"},
                                     {"TANDEM_DEVICES_MEMORY_FRACTION", "0.75"},
                                     {"TANDEM_SERVE_PREFIX_CACHE", "false"},
                                     {"TANDEM_SERVER_CORS_ORIGINS", "[\"https://a.example\"]"}},
                                    {});
  REQUIRE(loaded);
  CHECK(loaded->devices.list == std::vector<std::string>{"cpu:0-0", "cpu:1-1"});
  CHECK(loaded->devices.memory_fraction == 0.75);
  CHECK_FALSE(loaded->serve.prefix_cache);
  CHECK(loaded->server.cors_origins == std::vector<std::string>{"https://a.example"});
}

TEST_CASE("a misspelt environment setting is refused, variables that are no settings are not") {
  CHECK(load_settings({}, {{"TANDEM_SERVER_PROT", "1"}}, {}).error().detail ==
        "environment TANDEM_SERVER_PROT: unknown setting: did you mean TANDEM_SERVER_PORT?");
  CHECK(load_settings({}, {{"TANDEM_SEVER_PORT", "1"}}, {}).error().detail ==
        "environment TANDEM_SEVER_PORT: unknown setting: did you mean TANDEM_SERVER_PORT?");
  CHECK(load_settings({}, {{"TANDEM_SERVER_PORT", "many"}}, {}).error().detail ==
        "environment TANDEM_SERVER_PORT: server.port: expected a whole number, got \"many\"");
  CHECK(load_settings({}, {{"TANDEM_TRACE_FILE", "x"}}, {}).error().detail.find("not built yet") !=
        std::string::npos);
  const pairs others = {{"TANDEM_HOME", "/x"},     {"TANDEM_ADDRESS", "http://x"},
                        {"TANDEM_API_KEY", "k"},   {"TANDEM_BUILD", "debug"},
                        {"SERVER_PORT", "banana"}, {"TANDEM", ""}};
  CHECK(load_settings({}, others, {}));
}

TEST_CASE("what is shown as TOML loads again as the same settings") {
  const auto first = load_settings(
      {}, {},
      {{"server.port", "1234"}, {"model.name", "a \"b\"\n\\c"}, {"devices.list", "cpu:0-0"}});
  REQUIRE(first);
  const std::string shown = tandem::show_settings(*first);
  CHECK(shown.find("# command line") != std::string::npos);
  const settings_file file(shown);
  const auto second = load_settings(file.path(), {}, {});
  REQUIRE(second);
  CHECK(second->server.port == 1234);
  CHECK(second->model.name == "a \"b\"\n\\c");
  const auto without_origins = [](std::string text) {
    std::string kept;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = text.find('\n', at);
      kept += text.substr(at, std::min(text.find(" # ", at), end) - at) + "\n";
      at = end + 1;
    }
    return kept;
  };
  CHECK(without_origins(tandem::show_settings(*second)) == without_origins(shown));
}

TEST_CASE("settings shown as JSON name key, value, origin and meaning of each") {
  const auto loaded = load_settings({}, {}, {{"server.port", "1234"}});
  REQUIRE(loaded);
  const std::string json = tandem::show_settings_json(*loaded);
  CHECK(json.find(
            R"({"key": "server.port", "value": 1234, "origin": "command line", "meaning": ")") !=
        std::string::npos);
  CHECK(std::ranges::count(json, '\n') == static_cast<std::ptrdiff_t>(loaded->origins.size()));
}

TEST_CASE("sizes are read with decimal and binary units") {
  CHECK(*tandem::parse_bytes("1048576") == 1048576);
  CHECK(*tandem::parse_bytes("512MiB") == 512LL << 20);
  CHECK(*tandem::parse_bytes("2GB") == 2'000'000'000);
  CHECK(*tandem::parse_bytes("1.5 GiB") == 3LL << 29);
  for (const char* bad : {"", "MiB", "-1MB", "12 parsecs", "1e40TB", "nan", "99999999999TiB"}) {
    CAPTURE(bad);
    CHECK_FALSE(tandem::parse_bytes(bad));
  }
}

}  // namespace
