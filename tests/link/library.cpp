// Models travel between two processes: what one has under a path the other fetches, keeps and finds
// again. The head runs in a folder of its own, and paths are relative: what is there is not here.
#include "actors/borrower.hpp"
#include "actors/wire_types.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/link_world.hpp"
#include "tests/support/temporary_folder.hpp"

#include <catch2/catch.hpp>

#include <fstream>
#include <iterator>
#include <variant>

using namespace tandem;
using namespace tandem::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

constexpr const char* model_path = "models/tiny";
constexpr std::size_t weight_bytes = std::size_t{40} << 20;

std::string filling(std::size_t bytes, unsigned seed) {
  std::string text(bytes, ' ');
  std::uint64_t state = seed;
  for (char& c : text) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    c = static_cast<char>(state >> 56U);
  }
  return text;
}

std::string text_in(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_model(const fs::path& folder, unsigned seed) {
  fs::create_directories(folder / model_path);
  std::ofstream(folder / model_path / "config.json") << "{}";
  std::ofstream(folder / model_path / "model.safetensors", std::ios::binary)
      << filling(weight_bytes, seed);
}

class head_process : public child_process {
 public:
  explicit head_process(const fs::path& home)
      : child_process({TANDEM_LINK_NODE, "127.0.0.1:0", "posix,self", "10000", "-", home}) {
    const auto where = line("listening ");
    REQUIRE(where);
    address = *where;
  }
  std::string address;
};

transport::fabric_options node_options() {
  transport::fabric_options options;
  options.transports = "posix,self";
  return options;
}

struct node_config : link_config {
  node_config() {
    actors::add_wire_types(*this);
    REQUIRE(actors::load_link(*this, node_options()));
  }
};

// A node in a folder of its own, with what it borrows.
class node {
 public:
  explicit node(std::uint64_t bytes_max = 1ULL << 30U)
      : before_(fs::current_path()), system_(config_), self_(system_) {
    fs::current_path(home.path());
    actors::borrower_options options;
    options.folder = cache;
    options.bytes_max = bytes_max;
    options.first_pause = 1ms;
    borrower = system_.spawn<caf::detached>(actors::borrower, options);
    other_process = system_.spawn<caf::detached>(actors::borrower, options);
  }
  ~node() {
    for (auto* one : {&borrower, &other_process})  // the system waits until nobody knows them
      self_->send_exit(std::exchange(*one, nullptr), caf::exit_reason::user_shutdown);
    fs::current_path(before_);
  }

  caf::node_id find(const head_process& head) {
    caf::node_id found;
    actors::link_of(system_)
        .resolve<actors::library_actor>(self_, head.address, actors::library_name, 20s)
        .receive([&](const caf::strong_actor_ptr& there) { found = there->node(); },
                 [](const caf::error& why) { FAIL(actors::from_caf(why).detail); });
    return found;
  }
  auto ask(const actors::borrower_actor& whom, const caf::node_id& from,
           const std::string& path = model_path) {
    return self_->request(whom, caf::duration(60s),
                          actors::borrow{from, path, shelf::purpose::model, 5s});
  }
  template <class Response>
  static result<actors::borrowed> wait_for(Response&& asked) {
    result<actors::borrowed> got = error{};
    std::forward<Response>(asked).receive(
        [&](const actors::borrowed& here) { got = here; },
        [&](const caf::error& why) { got = actors::from_caf(why); });
    return got;
  }
  result<actors::borrowed> borrow(const caf::node_id& from, const std::string& path = model_path) {
    return wait_for(ask(borrower, from, path));
  }
  std::size_t copies() const {
    std::size_t count = 0;
    for (const auto& one : fs::directory_iterator(cache))
      count += one.is_directory() && one.path().extension() != ".part" ? 1 : 0;
    return count;
  }

  const temporary_folder home;
  const fs::path cache = home.path() / "cache";
  actors::borrower_actor borrower;
  actors::borrower_actor other_process;

 private:
  const fs::path before_;
  node_config config_;
  caf::actor_system system_;
  caf::scoped_actor self_;
};

struct head_and_node {
  temporary_folder folder;
  head_and_node() { write_model(folder.path(), 1); }
};

}  // namespace

TEST_CASE("a model that is not here is fetched whole, and found again without the head") {
  const head_and_node files;
  head_process head(files.folder.path());
  node here;
  const auto from = here.find(head);
  const auto got = here.borrow(from);
  INFO((got ? "" : got.error().detail));
  REQUIRE(got);
  CHECK(got->path.starts_with(here.cache.string()));
  CHECK(got->path.ends_with("/tiny"));
  CHECK(text_in(got->path + "/model.safetensors") == filling(weight_bytes, 1));
  CHECK(text_in(got->path + "/config.json") == "{}");
  CHECK(got->hold != nullptr);
  const auto again = here.borrow(from);
  REQUIRE(again);
  CHECK(again->path == got->path);
  CHECK(here.copies() == 1);
  // Another one is fetched beside it.
  write_model(files.folder.path(), 2);
  const auto changed = here.borrow(from);
  REQUIRE(changed);
  CHECK(changed->path != got->path);
  CHECK(text_in(changed->path + "/model.safetensors") == filling(weight_bytes, 2));
  head.kill_now();
  const auto gone = here.borrow(from);
  REQUIRE_FALSE(gone);
  CHECK(gone.error().code == errc::unavailable);
}

TEST_CASE("two processes of a machine that need the same fetch it once") {
  const head_and_node files;
  head_process head(files.folder.path());
  node here;
  const auto from = here.find(head);
  auto first = here.ask(here.borrower, from);
  auto second = here.ask(here.other_process, from);
  const auto one = node::wait_for(std::move(first));
  const auto two = node::wait_for(std::move(second));
  REQUIRE(one);
  REQUIRE(two);
  CHECK(one->path == two->path);
  CHECK(here.copies() == 1);
}

TEST_CASE("a path here is used as it is when it has the same bytes, and not when it has others") {
  const head_and_node files;
  head_process head(files.folder.path());
  node here;
  const auto from = here.find(head);
  write_model(here.home.path(), 1);
  const auto same = here.borrow(from);
  REQUIRE(same);
  CHECK(same->path == model_path);
  CHECK_FALSE(fs::exists(here.cache));
  write_model(here.home.path(), 2);
  const auto other = here.borrow(from);
  REQUIRE(other);
  CHECK(other->path.starts_with(here.cache.string()));
  CHECK(text_in(other->path + "/model.safetensors") == filling(weight_bytes, 1));
}

TEST_CASE("what the head does not give is refused at once, with its line") {
  const head_and_node files;
  head_process head(files.folder.path());
  node here;
  const auto from = here.find(head);
  for (const auto* path : {"models", "models/tiny/../other", "/etc", "jobs/a/checkpoints/step-1"}) {
    const auto got = here.borrow(from, path);
    REQUIRE_FALSE(got);
    CHECK(got.error().code == errc::forbidden);
    CHECK(got.error().detail.find("not given to other nodes") != std::string::npos);
  }
}

TEST_CASE(
    "a head that is lost on the way leaves nothing whole, and the next one goes on from there") {
  const head_and_node files;
  node here;
  std::uint64_t left = 0;
  {
    head_process head(files.folder.path());
    auto asked = here.ask(here.borrower, here.find(head));
    // The remnant grows while it comes.
    const auto until = std::chrono::steady_clock::now() + 20s;
    while (left < (std::size_t{8} << 20) && std::chrono::steady_clock::now() < until) {
      left = 0;
      std::error_code ignored;
      for (fs::recursive_directory_iterator at(here.cache, ignored), end; !ignored && at != end;
           at.increment(ignored))
        if (at->path().filename() == "model.safetensors") left = at->file_size(ignored);
    }
    head.kill_now();
    const auto got = node::wait_for(std::move(asked));
    if (got) return;  // it was faster
    CHECK(got.error().code == errc::unavailable);
    CHECK(got.error().detail.find("the head is gone") != std::string::npos);
    CHECK(here.copies() == 0);
  }
  head_process again(files.folder.path());
  const auto got = here.borrow(here.find(again));
  REQUIRE(got);
  CHECK(text_in(got->path + "/model.safetensors") == filling(weight_bytes, 1));
}

TEST_CASE("a cache that is too small says so with the setting, and nothing is tried again") {
  const head_and_node files;
  head_process head(files.folder.path());
  node here(10'000'000);
  const auto got = here.borrow(here.find(head));
  REQUIRE_FALSE(got);
  CHECK(got.error().code == errc::no_memory);
  CHECK(got.error().detail.find("cluster.cache_bytes") != std::string::npos);
  CHECK(got.error().detail.find("42 MB") != std::string::npos);
}
