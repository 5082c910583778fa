#include "runtime/train/checkpoint.hpp"
#include "runtime/train/checkpoint_writer.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/train/fake_memory.hpp"

#include <catch2/catch.hpp>

#include <fstream>
#include <set>

namespace tandem::train {
namespace {

namespace fs = std::filesystem;
using test::facts_at;
using test::fake_group;
using test::fake_memory;

constexpr std::size_t few = 1001;

std::vector<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename());
  return {names.begin(), names.end()};
}

fs::path written(const fs::path& folder, std::int64_t step, int kept = 3) {
  auto path = write_checkpoint(folder, facts_at(step), fake_group(few, step), kept);
  REQUIRE(path.has_value());
  return *path;
}

void flip_bit(const fs::path& file, std::int64_t at) {
  std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
  bytes.seekg(at);
  const char was = static_cast<char>(bytes.get());
  bytes.seekp(at);
  bytes.put(static_cast<char>(was ^ 4));
}

TEST_CASE("what is written is read back to the bit, facts and numbers") {
  test::temporary_folder home;
  const fs::path path = written(home.path() / "job" / "checkpoints", 12);
  CHECK(path.filename() == "step-00000012");

  const auto facts = read_checkpoint_facts(path);
  REQUIRE(facts.has_value());
  const auto wanted = facts_at(12);
  CHECK(facts->job == wanted.job);
  CHECK(facts->model_path == wanted.model_path);
  CHECK(facts->base_name == wanted.base_name);
  CHECK(facts->step == 12);
  CHECK(facts->step_count == 100);
  CHECK(facts->trained_tokens == wanted.trained_tokens);
  CHECK(facts->settings == wanted.settings);
  CHECK(facts->metrics == wanted.metrics);
  REQUIRE(facts->layout.size() == 2);
  CHECK(facts->layout[1].name == "model.norm.weight");
  CHECK(facts->layout[1].first_float == 500);
  CHECK(facts->layout[1].floats == 501);
  CHECK_FALSE(facts->layout[1].matrix);

  std::vector<float> parameters(few);
  std::vector<float> first(few);
  std::vector<float> second(few);
  REQUIRE(read_parameters(path, parameters).has_value());
  REQUIRE(read_moments(path, 0, first, second).has_value());
  for (std::size_t i = 0; i < few; ++i) {
    REQUIRE(parameters[i] == fake_memory::parameter_at(i, 12));
    REQUIRE(first[i] == -parameters[i]);
    REQUIRE(second[i] == parameters[i] * 0.5F);
  }
}

TEST_CASE("the moments of several devices make the file that one device would write") {
  test::temporary_folder home;
  constexpr std::size_t floats = 5'000'003;  // 20 MB: two pieces, odd shards
  std::vector<std::string> records;
  for (const std::size_t devices : {1, 2, 4}) {
    const auto folder = home.path() / std::to_string(devices);
    const auto path = write_checkpoint(folder, facts_at(3), fake_group(floats, 3, devices), 1);
    REQUIRE(path.has_value());
    std::ifstream record(*path / "checkpoint.json");
    records.emplace_back(std::istreambuf_iterator<char>(record), std::istreambuf_iterator<char>());
    CHECK(check_checkpoint(*path).has_value());

    // And a shard of another size is read out of it.
    const std::size_t begin = floats / 3;
    std::vector<float> first(floats / 3);
    std::vector<float> second(floats / 3);
    REQUIRE(read_moments(*path, begin, first, second).has_value());
    for (std::size_t i = 0; i < first.size(); i += 997)
      REQUIRE(first[i] == -fake_memory::parameter_at(begin + i, 3));
    REQUIRE(second.back() == fake_memory::parameter_at(begin + second.size() - 1, 3) * 0.5F);
  }
  CHECK(records[0] == records[1]);  // the checksums among it
  CHECK(records[0] == records[2]);
}

TEST_CASE("only the newest checkpoints are kept, and those that are wanted") {
  test::temporary_folder home;
  for (std::int64_t step = 1; step <= 6; ++step) {
    const auto path = write_checkpoint(home.path(), facts_at(step), fake_group(few, step), 2,
                                       [](std::int64_t one) { return one == 3; });
    REQUIRE(path.has_value());
  }
  CHECK(names_in(home.path()) ==
        std::vector<std::string>{"step-00000003", "step-00000005", "step-00000006"});
}

TEST_CASE("what killed writers left is removed by the next one") {
  test::temporary_folder home;
  fs::create_directories(home.path() / "step-00000002.part");
  home.write("step-00000002.part/parameters.f32", "half");
  fs::create_directories(home.path() / "step-00000007.old.part");
  written(home.path(), 9);
  CHECK(names_in(home.path()) == std::vector<std::string>{"step-00000009"});
}

TEST_CASE("a checkpoint that may not be committed is never there") {
  test::temporary_folder home;
  written(home.path(), 4);
  const auto path =
      write_checkpoint(home.path(), facts_at(5), fake_group(few, 5), 3, {}, []() -> result<void> {
        return error{errc::conflict, "another head leads", "store.lead"};
      });
  REQUIRE(!path);
  CHECK(path.error().detail == "another head leads");
  CHECK(names_in(home.path()) == std::vector<std::string>{"step-00000004"});
}

TEST_CASE("a step that is written again takes the place of the one before") {
  test::temporary_folder home;
  written(home.path(), 4);
  auto facts = facts_at(4);
  facts.trained_tokens = 1;
  const auto path = write_checkpoint(home.path(), facts, fake_group(few, 5), 3);
  REQUIRE(path.has_value());
  CHECK(names_in(home.path()) == std::vector<std::string>{"step-00000004"});
  CHECK(read_checkpoint_facts(*path)->trained_tokens == 1);
  CHECK(check_checkpoint(*path).has_value());
}

TEST_CASE("no folder and no checkpoint are nothing, not an error") {
  test::temporary_folder home;
  CHECK_FALSE(find_checkpoint(home.path() / "none").path);
  fs::create_directories(home.path() / "step-00000003.part");
  fs::create_directories(home.path() / "step-3");
  home.write("step-00000004x", "");
  const auto found = find_checkpoint(home.path());
  CHECK_FALSE(found.path);
  CHECK(found.broken.empty());
}

TEST_CASE("a torn or flipped file is told, and the checkpoint before it is used") {
  test::temporary_folder home;
  const fs::path good = written(home.path(), 1);
  const fs::path bad = written(home.path(), 2);
  std::string file;
  SECTION("a bit of the parameters") { flip_bit(bad / (file = "parameters.f32"), 2000); }
  SECTION("a bit of the first moments") { flip_bit(bad / (file = "first_moments.f32"), 4003); }
  SECTION("a bit of the record") { flip_bit(bad / (file = "checkpoint.json"), 150); }
  SECTION("a bit of the record's own checksum") { flip_bit(bad / (file = "checkpoint.json"), 12); }
  SECTION("a file cut short") { fs::resize_file(bad / (file = "second_moments.f32"), 4000); }
  SECTION("a file too long") { fs::resize_file(bad / (file = "second_moments.f32"), 4008); }
  SECTION("a record cut short") { fs::resize_file(bad / (file = "checkpoint.json"), 300); }
  SECTION("an empty record") { fs::resize_file(bad / (file = "checkpoint.json"), 0); }
  SECTION("a file that is gone") { fs::remove(bad / (file = "parameters.f32")); }
  SECTION("no record") { fs::remove(bad / (file = "checkpoint.json")); }

  const auto found = find_checkpoint(home.path());
  CHECK(found.path == good);
  REQUIRE(found.broken.size() == 1);
  CHECK_THAT(found.broken[0], Catch::Contains("step-00000002") && Catch::Contains(file));

  // And a broken one never pushes a whole one out.
  written(home.path(), 1, 1);
  CHECK(find_checkpoint(home.path()).path == good);
}

TEST_CASE("a checkpoint under another step's name is broken") {
  test::temporary_folder home;
  fs::rename(written(home.path(), 1), home.path() / "step-00000005");
  const auto found = find_checkpoint(home.path());
  CHECK_FALSE(found.path);
  REQUIRE(found.broken.size() == 1);
  CHECK_THAT(found.broken[0], Catch::Contains("it holds step 1"));
}

TEST_CASE("a checkpoint of another size is refused with both numbers") {
  test::temporary_folder home;
  const fs::path path = written(home.path(), 1);
  std::vector<float> more(few + 1);
  const auto read = read_parameters(path, more);
  REQUIRE_FALSE(read.has_value());
  CHECK(read.error().code == errc::conflict);
  CHECK_THAT(read.error().detail, Catch::Contains("1001") && Catch::Contains("1002"));
  CHECK_FALSE(read_moments(path, 2, std::span(more).first(few), {}).has_value());
  CHECK(read_moments(path, few, {}, {}).has_value());
}

TEST_CASE("the hash is SHA-256 of the parameters alone") {
  test::temporary_folder home;
  const fs::path one = written(home.path() / "one", 1);
  auto facts = facts_at(2);
  const auto other = write_checkpoint(home.path() / "other", facts, fake_group(few, 1, 2), 1);
  REQUIRE(other.has_value());
  CHECK(parameters_hash(one).value() == parameters_hash(*other).value());
  CHECK(parameters_hash(one).value() != parameters_hash(written(home.path(), 2)).value());
  std::ofstream(one / "parameters.f32", std::ios::binary | std::ios::trunc) << "abc";
  CHECK(parameters_hash(one).value() ==  // FIPS 180-2, B.1
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace tandem::train
