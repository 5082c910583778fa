// A node's door and the doorkeeper of a head in another process: what holds there comes here, with
// the model's files, and again from the next head.
#include "actors/door.hpp"
#include "actors/gateway.hpp"
#include "actors/wire_types.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/link_world.hpp"
#include "tests/support/temporary_folder.hpp"

#include <catch2/catch.hpp>

#include <condition_variable>
#include <fstream>
#include <functional>
#include <mutex>
#include <optional>

using namespace tandem;
using namespace tandem::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

class head_process {
 public:
  explicit head_process(const std::string& config) {
    fs::create_directories(home_.path() / "models/tiny");
    std::ofstream(home_.path() / "models/tiny/config.json") << config;
    process_.emplace(std::vector<std::string>{TANDEM_LINK_NODE, "127.0.0.1:0", "posix,self",
                                              "10000", "-", home_.path()});
    const auto where = process_->line("listening ");
    REQUIRE(where);
    address = *where;
  }
  void kill_now() { process_->kill_now(); }
  std::string address;

 private:
  const temporary_folder home_;
  std::optional<child_process> process_;
};

// The newest of what a thread tells.
template <class T>
class newest_of {
 public:
  void put(T value) {
    const std::lock_guard lock(mutex_);
    value_ = std::move(value);
    told_.notify_all();
  }
  // One for which this holds; none: it did not come in time.
  std::optional<T> wait(const std::function<bool(const T&)>& holds) {
    std::unique_lock lock(mutex_);
    const bool came = told_.wait_for(lock, 20s, [&] { return value_ && holds(*value_); });
    return came ? value_ : std::nullopt;
  }

 private:
  std::mutex mutex_;
  std::condition_variable told_;
  std::optional<T> value_;
};

struct node_config : link_config {
  node_config() {
    actors::add_wire_types(*this);
    transport::fabric_options options;
    options.transports = "posix,self";
    REQUIRE(actors::load_link(*this, options));
  }
};

// A node in a folder of its own, where the head's paths lead nowhere.
class node {
 public:
  node() : before_(fs::current_path()), system_(config_) {
    fs::current_path(home_.path());
    actors::borrower_options options;
    options.folder = home_.path() / "cache";
    options.bytes_max = 1 << 20;
    options.first_pause = 1ms;
    borrower_ = system_.spawn<caf::detached>(actors::borrower, options);
    gateway_ = system_.spawn(actors::gateway, actors::serve_coordinator_actor(), board,
                             actors::coordinator_actor());
    actors::door_options opening;
    opening.gateway = gateway_;
    opening.borrower = borrower_;
    opening.tell = [this](actors::door_news told) { news.put(std::move(told)); };
    opening.first_pause = 1ms;
    opening.period = 10ms;
    door = system_.spawn(actors::door, std::move(opening));
    board->on_report([this] { reported.put(true); });
  }
  ~node() {
    board->on_report({});
    caf::anon_send_exit(std::exchange(door, nullptr), caf::exit_reason::user_shutdown);
    caf::anon_send_exit(std::exchange(gateway_, nullptr), caf::exit_reason::user_shutdown);
    caf::anon_send_exit(std::exchange(borrower_, nullptr), caf::exit_reason::user_shutdown);
    fs::current_path(before_);
  }

  std::shared_ptr<actors::gateway_board> board = std::make_shared<actors::gateway_board>();
  newest_of<actors::door_news> news;
  newest_of<bool> reported;
  caf::actor door;

 private:
  const temporary_folder home_;
  const fs::path before_;
  node_config config_;
  caf::actor_system system_;
  actors::borrower_actor borrower_;
  actors::gateway_actor gateway_;
};

std::string config_in(const actors::door_news& news) {
  std::ifstream file(news.model->path + "/config.json");
  return {std::istreambuf_iterator<char>(file), {}};
}

bool has_model(const actors::door_news& news) { return news.model.has_value(); }

}  // namespace

TEST_CASE("a door learns from its head what holds, and gets the model and who serves it") {
  head_process head(R"({"of": "the first"})");
  node here;
  caf::anon_send(here.door, actors::head_found{head.address});
  const auto told = here.news.wait(has_model);
  REQUIRE(told);
  CHECK(told->head == head.address);
  CHECK(told->terms.model_id == "tiny");
  CHECK(told->terms.api_keys == actors::door_keys{true, {"a hash"}});
  CHECK(config_in(*told) == R"({"of": "the first"})");
  CHECK(here.reported.wait([](bool) { return true; }));
}

TEST_CASE("a door that follows another head has that one's model, at whatever path") {
  head_process first(R"({"of": "the first"})");
  node here;
  caf::anon_send(here.door, actors::head_found{first.address});
  const auto before = here.news.wait(has_model);
  REQUIRE(before);
  first.kill_now();
  caf::anon_send(here.door, actors::head_lost{});
  head_process second(R"({"of": "the second"})");
  caf::anon_send(here.door, actors::head_found{second.address});
  const auto after =
      here.news.wait([&](const auto& told) { return told.head == second.address && told.model; });
  REQUIRE(after);
  CHECK(after->model->path != before->model->path);
  CHECK(config_in(*after) == R"({"of": "the second"})");
}
