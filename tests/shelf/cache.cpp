// What a node keeps of what it fetched.
#include "tests/shelf/support.hpp"

using namespace tandem;
using namespace tandem::test;
using shelf::purpose;

namespace {

constexpr std::uint64_t plenty = 1 << 30;

struct node_cache {
  temporary_folder home;
  fs::path root = home.path() / "cache" / "models";
  shelf::cache cache;
  explicit node_cache(std::uint64_t bytes_max = plenty) : cache(root, bytes_max) {}

  shelf::incoming begin(const shelf::listing& what) const {
    auto begun = cache.begin(what);
    INFO((begun ? "" : begun.error().detail));
    REQUIRE(begun);
    REQUIRE(*begun);
    return **std::move(begun);
  }
  void fetch(const shelf::shelf_entry& from) const {
    auto coming = begin(from.facts());
    REQUIRE(fill(coming, from));
    REQUIRE(cache.finish(coming));
  }
  std::optional<shelf::held_path> find(const shelf::listing& what) const {
    auto found = cache.find(what);
    REQUIRE(found);
    return *std::move(found);
  }
};

shelf::shelf_entry checkpoint_of(head_files& head, int step, std::size_t bytes) {
  const auto path = head.checkpoint.parent_path() / ("step-" + std::to_string(step));
  write(path / "checkpoint.json", "{}");
  write(path / "parameters.f32", filling(bytes, static_cast<unsigned>(step)));
  return head.open(path, purpose::version);
}

// Its last use lies so many hours back.
void age(const node_cache& node, const shelf::listing& what, int hours) {
  fs::last_write_time(node.root / (shelf::key_of(what) + ".lock"),
                      fs::file_time_type::clock::now() - std::chrono::hours(hours));
}

}  // namespace

TEST_CASE("what was fetched whole is found again, under its own name") {
  head_files head;
  const node_cache node;
  const auto model = head.open_model();
  CHECK_FALSE(node.find(model.facts()));
  node.fetch(model);
  const auto found = node.find(model.facts());
  REQUIRE(found);
  CHECK(found->path == node.root / shelf::key_of(model.facts()) / "tiny");
  for (const auto& file : model.facts().files)
    CHECK(text_in(found->path / file.name) == text_in(head.roots.model / file.name));
  CHECK_FALSE(fs::exists(found->path / "README.md"));
  CHECK_FALSE(*node.cache.begin(model.facts()));
}

TEST_CASE("a fetch that breaks off is found by nobody, and the next goes on where it stopped") {
  head_files head;
  const node_cache node;
  const auto model = head.open_model();
  {
    auto coming = node.begin(model.facts());
    REQUIRE(fill(coming, model, 5));
    CHECK(coming.bytes_left() < model.facts().bytes());
  }
  CHECK_FALSE(node.find(model.facts()));
  auto again = node.begin(model.facts());
  while (!*again.look()) {
  }
  const auto left = again.bytes_left();
  CHECK(left < 70'000);
  CHECK(again.next(1 << 20) == shelf::wanted_piece{2, 100'000 - left, left});
  again.ask_again();
  REQUIRE(fill(again, model));
  REQUIRE(node.cache.finish(again));
  CHECK(node.find(model.facts()));
}

TEST_CASE("a remnant that was damaged is fetched again") {
  head_files head;
  const node_cache node;
  const auto model = head.open_model();
  {
    auto coming = node.begin(model.facts());
    REQUIRE(fill(coming, model));  // whole, but killed before it got its name
  }
  const auto part = node.root / (shelf::key_of(model.facts()) + ".part") / "tiny";
  write(part / "model.safetensors", filling(100'000, 9));
  auto again = node.begin(model.facts());
  REQUIRE(fill(again, model));
  REQUIRE(node.cache.finish(again));
  CHECK(text_in(node.find(model.facts())->path / "model.safetensors") == filling(100'000));
}

TEST_CASE("what a power cut may have halved is hashed again, what is on the disk is not") {
  head_files head;
  const node_cache node;
  const auto model = head.open_model();
  node.fetch(model);
  const auto lock = node.root / (shelf::key_of(model.facts()) + ".lock");
  CHECK(text_in(lock) == shelf::this_machines_name());
  SECTION("the machine was started again") {
    write(lock, "another start");
    CHECK_FALSE(node.find(model.facts()));
    auto again = node.begin(model.facts());
    while (!*again.look()) {
    }
    CHECK(again.is_whole());
    REQUIRE(node.cache.finish(again));
    CHECK(node.find(model.facts()));
  }
  SECTION("it is on the disk") {
    shelf::disk_sync sync(model.facts(), *node.find(model.facts()));
    for (auto done = sync.advance(); !*done; done = sync.advance()) REQUIRE(done);
    CHECK(text_in(lock) == "on the disk");
    CHECK(node.find(model.facts()));
  }
}

TEST_CASE("bytes of another hash are thrown away with a line") {
  head_files head;
  const node_cache node;
  const auto model = head.open_model();
  auto other = model.facts();
  other.files[2].sha256 = std::string(64, 'a');
  auto coming = node.begin(other);
  const auto filled = fill(coming, model);
  REQUIRE_FALSE(filled);
  CHECK(filled.error().code == errc::bad_file);
  CHECK(filled.error().detail.find("aaaaaaaaaaaaaaaa") != std::string::npos);
  CHECK(filled.error().detail.find("100000 bytes") != std::string::npos);
  coming.ask_again();
  CHECK(coming.next(10) == shelf::wanted_piece{2, 0, 10});
  CHECK_FALSE(node.find(other));
}

TEST_CASE("pieces are asked for ahead, and again where they do not come") {
  head_files head;
  const node_cache node;
  const auto model = head.open_model();
  auto coming = node.begin(model.facts());
  REQUIRE(*coming.look());
  CHECK(coming.next(60'000) == shelf::wanted_piece{0, 0, 2});
  CHECK(coming.next(60'000) == shelf::wanted_piece{2, 0, 60'000});
  CHECK(coming.next(60'000) == shelf::wanted_piece{2, 60'000, 40'000});
  CHECK_FALSE(coming.next(60'000));
  coming.ask_again();
  CHECK(coming.next(60'000) == shelf::wanted_piece{0, 0, 2});
}

TEST_CASE("two who need the same fetch it once") {
  head_files head;
  const node_cache node;
  const shelf::cache other(node.root, plenty);
  const auto model = head.open_model();
  auto coming = node.begin(model.facts());
  const auto second = other.begin(model.facts());
  REQUIRE(second);
  CHECK_FALSE(*second);
  REQUIRE(fill(coming, model));
  REQUIRE(node.cache.finish(coming));
  CHECK(*other.find(model.facts()));
}

TEST_CASE("room is made by what was used longest ago, and never by what is held") {
  head_files head;
  const node_cache node(3000);
  const auto first = checkpoint_of(head, 1, 1000);
  const auto second = checkpoint_of(head, 2, 900);
  const auto third = checkpoint_of(head, 3, 800);
  node.fetch(first);
  node.fetch(second);
  node.fetch(third);
  age(node, first.facts(), 3);
  age(node, second.facts(), 2);
  age(node, third.facts(), 1);
  std::optional<shelf::held_path> held;
  SECTION("the first goes") {
    node.fetch(checkpoint_of(head, 4, 1200));
    CHECK_FALSE(node.find(first.facts()));
    CHECK(node.find(second.facts()));
    CHECK(node.find(third.facts()));
  }
  SECTION("a use counts") {
    CHECK(node.find(first.facts()));
    node.fetch(checkpoint_of(head, 4, 1200));
    CHECK(node.find(first.facts()));
    CHECK_FALSE(node.find(second.facts()));
  }
  SECTION("what is held stays") {
    held = node.find(first.facts());
    age(node, first.facts(), 3);
    node.fetch(checkpoint_of(head, 4, 1200));
    CHECK(node.find(first.facts()));
    CHECK_FALSE(node.find(second.facts()));
  }
  SECTION("what was left half done goes too") {
    const auto half = checkpoint_of(head, 5, 100);
    {
      auto coming = node.begin(half.facts());
      REQUIRE(fill(coming, half, 1, 50));
    }
    age(node, half.facts(), 4);
    node.fetch(checkpoint_of(head, 4, 1200));
    CHECK_FALSE(fs::exists(node.root / (shelf::key_of(half.facts()) + ".part")));
    CHECK_FALSE(fs::exists(node.root / (shelf::key_of(half.facts()) + ".lock")));
  }
}

TEST_CASE("what cannot fit is refused with the numbers and the setting") {
  head_files head;
  const node_cache node(3'000'000);
  const auto small = checkpoint_of(head, 1, 2'000'000);
  node.fetch(small);
  const auto large = node.cache.begin(checkpoint_of(head, 2, 5'000'000).facts());
  REQUIRE_FALSE(large);
  CHECK(large.error().code == errc::no_memory);
  CHECK(large.error().detail.find("5 MB") != std::string::npos);
  CHECK(large.error().detail.find("3 MB") != std::string::npos);
  CHECK(large.error().detail.find("cluster.cache_bytes") != std::string::npos);
  const auto held = node.find(small.facts());
  const auto not_now = node.cache.begin(checkpoint_of(head, 3, 2'000'000).facts());
  REQUIRE_FALSE(not_now);
  CHECK(not_now.error().code == errc::io);
  CHECK(not_now.error().detail.find("2 of the 3 MB") != std::string::npos);
}
