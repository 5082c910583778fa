// What a head gives to its nodes, and what it does not.
#include "tests/shelf/support.hpp"

using namespace tandem;
using namespace tandem::test;
using shelf::purpose;

namespace {

std::vector<std::string> names(const shelf::listing& what) {
  std::vector<std::string> all;
  for (const auto& file : what.files) all.push_back(file.name);
  return all;
}

std::string refusal(const shelf::shelf_roots& roots, const std::string& path, purpose what) {
  const auto entry = shelf::shelf_entry::open(roots, path, what);
  return entry ? "" : entry.error().detail;
}

bool says(const std::string& text, std::string_view word) { return text.find(word) != text.npos; }

}  // namespace

TEST_CASE("a model's folder gives what a device reads of it, with sizes and hashes") {
  head_files head;
  const auto entry = head.open_model();
  const auto& facts = entry.facts();
  CHECK(facts.name == "tiny");
  CHECK(facts.is_folder);
  CHECK(names(facts) == std::vector<std::string>{"config.json", "empty.json", "model.safetensors"});
  CHECK(facts.files[0].bytes == 2);
  CHECK(facts.files[0].sha256 ==
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
  CHECK(facts.files[1].sha256 ==
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(facts.bytes() == 100'002);
  CHECK(shelf::check(facts));
}

TEST_CASE("a model of one file is listed as that file, also by a link to it") {
  head_files head;
  write(head.home.path() / "blobs" / "abc", filling(1000));
  head.roots.model = head.home.path() / "models" / "tiny.gguf";
  fs::create_symlink(head.home.path() / "blobs" / "abc", head.roots.model);
  const auto entry = head.open(head.roots.model, purpose::model);
  CHECK_FALSE(entry.facts().is_folder);
  CHECK(names(entry.facts()) == std::vector<std::string>{"tiny.gguf"});
  std::vector<std::byte> bytes(10);
  CHECK(entry.read(0, 990, bytes));
}

TEST_CASE("of a checkpoint only what is wanted is listed") {
  head_files head;
  CHECK(names(head.open(head.checkpoint, purpose::version).facts()) ==
        std::vector<std::string>{"checkpoint.json", "parameters.f32"});
  CHECK(head.open(head.checkpoint, purpose::training).facts().files.size() == 4);
}

TEST_CASE("what is neither the served model nor a checkpoint is refused with a line") {
  head_files head;
  const auto home = head.home.path();
  write(home / "models" / "other" / "config.json", "{}");
  write(home / "store" / "tandem.db", "secrets");
  const auto model = head.roots.model.string();
  const auto refused = [&](const std::string& path, purpose what = purpose::model) {
    return refusal(head.roots, path, what);
  };
  CHECK(says(refused((home / "models" / "other").string()), model));
  CHECK(says(refused(model + "/../other"), "'..'"));
  CHECK(says(refused(model + "/config.json"), model));
  CHECK(says(refused("/etc"), "not given to other nodes"));
  CHECK(says(refused(""), "no path"));
  CHECK(says(refused(std::string("a\0b", 3)), "no path"));
  CHECK(says(refused((home / "store").string(), purpose::version), "no checkpoint"));
  CHECK(says(refused(head.roots.jobs.string(), purpose::version), "no checkpoint"));
  CHECK(says(refused((head.roots.jobs / "ftjob-1").string(), purpose::training), "no checkpoint"));
  CHECK(says(refused((head.checkpoint / ".." / "..").string(), purpose::training), "'..'"));
  CHECK(says(refused((head.checkpoint.parent_path() / "step-99").string(), purpose::version),
             "No such file"));
  CHECK(says(refused(model, purpose::version), "no checkpoint"));
}

TEST_CASE("links that lead out are refused with where they lead") {
  head_files head;
  write(head.home.path() / "secret.json", "secret");
  SECTION("of a model's folder") {
    fs::create_symlink(head.home.path() / "secret.json", head.roots.model / "extra.json");
    CHECK(says(refusal(head.roots, head.roots.model.string(), purpose::model), "secret.json"));
  }
  SECTION("of a job") {
    write(head.home.path() / "elsewhere" / "checkpoint.json", "{}");
    const auto link = head.checkpoint.parent_path() / "step-00000013";
    fs::create_directory_symlink(head.home.path() / "elsewhere", link);
    CHECK(says(refusal(head.roots, link.string(), purpose::version), "elsewhere"));
  }
  SECTION("a link within the folder is as good as the file") {
    fs::create_symlink(head.roots.model / "config.json", head.roots.model / "same.json");
    CHECK(refusal(head.roots, head.roots.model.string(), purpose::model).empty());
  }
}

TEST_CASE("what is read lies within a file that is as it was listed") {
  head_files head;
  const auto entry = head.open_model();
  std::vector<std::byte> bytes(10);
  CHECK(entry.read(2, 99'990, bytes));
  CHECK_FALSE(entry.read(2, 99'991, bytes));
  CHECK_FALSE(entry.read(2, ~std::uint64_t{0}, bytes));
  CHECK_FALSE(entry.read(3, 0, bytes));
  CHECK(entry.is_current());
  write(head.roots.model / "config.json", "{ }");
  CHECK_FALSE(entry.is_current());
}

TEST_CASE("a checkpoint that is removed can still be read by who has begun to") {
  head_files head;
  const auto entry = head.open(head.checkpoint, purpose::version);
  fs::remove_all(head.checkpoint);
  std::vector<std::byte> bytes(4000);
  CHECK(entry.read(1, 0, bytes));
  CHECK(std::string(reinterpret_cast<const char*>(bytes.data()), 4000) == filling(4000, 2));
  CHECK_FALSE(entry.is_current());
}

TEST_CASE("a hash is computed once for a file that stays as it is") {
  head_files head;
  shelf::known_hashes known;
  auto first = shelf::shelf_entry::open(head.roots, head.roots.model.string(), purpose::model);
  REQUIRE(first);
  int stretches = 1;
  while (!*first->hash_some(known)) ++stretches;
  CHECK(stretches == 3);
  auto again = shelf::shelf_entry::open(head.roots, head.roots.model.string(), purpose::model);
  CHECK(*again->hash_some(known));
  CHECK(again->facts() == first->facts());
}

TEST_CASE("a listing from elsewhere leads nowhere but into its own folder") {
  head_files head;
  const auto good = head.open_model().facts();
  const auto with = [&](auto change) {
    auto what = good;
    change(what);
    return static_cast<bool>(shelf::check(what));
  };
  CHECK_FALSE(with([](auto& what) { what.name = "../x"; }));
  CHECK_FALSE(with([](auto& what) { what.name = ".."; }));
  CHECK_FALSE(with([](auto& what) { what.name = ""; }));
  CHECK_FALSE(with([](auto& what) { what.files[0].name = "a/b"; }));
  CHECK_FALSE(with([](auto& what) { what.files[0].name = ".hidden"; }));
  CHECK_FALSE(with([](auto& what) { what.files[1].name = what.files[0].name; }));
  CHECK_FALSE(with([](auto& what) { what.files[0].bytes = ~std::uint64_t{0}; }));
  CHECK_FALSE(with([](auto& what) { what.files[0].sha256 = "abc"; }));
  CHECK_FALSE(with([](auto& what) { what.files.clear(); }));
  CHECK_FALSE(with([](auto& what) { what.is_folder = false; }));
  CHECK_FALSE(with([](auto& what) { what.files.resize(shelf::listed_files_max + 1); }));
}

TEST_CASE("a key says what the files are, not where they lie") {
  head_files head;
  auto what = head.open_model().facts();
  const auto key = shelf::key_of(what);
  what.machine = "another";
  what.files[0].place = {};
  CHECK(shelf::key_of(what) == key);
  what.files[0].sha256.back() ^= 1;
  CHECK(shelf::key_of(what) != key);
}

TEST_CASE("the very same file is known without reading it, a copy by its sizes only") {
  head_files head;
  const auto what = head.open_model().facts();
  CHECK(shelf::compare(what, head.roots.model) == shelf::likeness::same);
  const temporary_folder elsewhere;
  fs::copy(head.roots.model, elsewhere.path() / "copy");
  CHECK(shelf::compare(what, elsewhere.path() / "copy") == shelf::likeness::same_sizes);
  write(elsewhere.path() / "copy" / "config.json", "{ }");
  CHECK(shelf::compare(what, elsewhere.path() / "copy") == shelf::likeness::other);
  CHECK(shelf::compare(what, elsewhere.path() / "none") == shelf::likeness::other);
  auto of_another_machine = what;
  of_another_machine.machine = "another";
  CHECK(shelf::compare(of_another_machine, head.roots.model) == shelf::likeness::same_sizes);
}
