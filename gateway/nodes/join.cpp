// `tandem join`: a node of a cluster whose head is elsewhere.
#include "gateway/platform.hpp"

#include "actors/link.hpp"
#include "actors/member.hpp"
#include "actors/supervisor.hpp"
#include "gateway/nodes/actor_house.hpp"
#include "gateway/nodes/borrowing.hpp"
#include "gateway/nodes/door.hpp"
#include "gateway/nodes/link_settings.hpp"
#include "gateway/nodes/worker.hpp"
#include "gateway/process_signals.hpp"
#include "runtime/log.hpp"
#include "runtime/transport/local_host.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include <unistd.h>

namespace tandem::gateway {
namespace {

using steady = std::chrono::steady_clock;

constexpr int status_refused = 1;
constexpr int status_broken = 3;

int refuse(const error& why) {
  fmt::print(stderr, "tandem: {}\n", why.detail);
  return status_refused;
}

template <class... Args>
void say(fmt::format_string<Args...> text, Args&&... args) {
  fmt::print(text, std::forward<Args>(args)...);
  fmt::print("\n");
  std::fflush(stdout);
}

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  std::string plain(name.data());
  for (char& c : plain)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-' && c != '.') c = '-';
  return plain.empty() ? "node" : plain.substr(0, 64);
}

// From the member's thread to this one.
class news_box {
 public:
  void put(actors::member_news news) {
    const std::lock_guard lock(mutex_);
    news_.push_back(std::move(news));
  }
  std::optional<actors::member_news> take() {
    const std::lock_guard lock(mutex_);
    if (news_.empty()) return std::nullopt;
    auto first = std::move(news_.front());
    news_.pop_front();
    return first;
  }

 private:
  std::mutex mutex_;
  std::deque<actors::member_news> news_;
};

actors::node_options devices_of(const std::string& name, std::vector<device_spec> devices) {
  actors::node_options made;
  for (auto& device : devices) device.name = name + "/" + device.name;
  made.devices = std::move(devices);
  return made;
}

// Where devices have processes of their own: started anew for each head, which they dial.
std::function<actors::worker_factory(const std::string& head)> workers_of(
    const join_options& options, const std::string& name, const transport::fabric_options& link,
    std::uint64_t cache_bytes) {
  if (!in_workers(options.configuration)) return nullptr;
  worker_settings common;
  common.node = name;
  common.log_level = options.configuration.log.level;
  common.cache_bytes = cache_bytes;
  common.link = link;
  common.link.advertise.clear();
  common.link.listen = link.listen.substr(0, link.listen.rfind(':')) + ":0";
  return [common = std::move(common)](const std::string& head) {
    auto settings = common;
    settings.head = head;
    return start_workers(std::move(settings));
  };
}

// What the news mean to who started it; the exit status once it is over.
std::optional<int> tell_user(const actors::member_news& news, const std::vector<std::string>& heads,
                             const std::string& name, const std::string& address,
                             steady::time_point& began) {
  using kind = actors::member_news::kind;
  switch (news.what) {
    case kind::joined:
      say("joined {} as {} ({}) in {} ms", news.head, name, address,
          std::chrono::duration_cast<std::chrono::milliseconds>(steady::now() - began).count());
      return std::nullopt;
    case kind::turned_away: {  // the link's own reasons begin with the address
      const auto asked = fmt::format("{}", fmt::join(heads, ", "));
      const auto begins = asked + ": ";
      return refuse(
          {errc::unavailable,
           fmt::format("cannot join {}: {}", asked,
                       news.why.starts_with(begins) ? news.why.substr(begins.size()) : news.why),
           ""});
    }
    case kind::lost:
      began = steady::now();
      say("lost {}: trying {}", news.head, fmt::join(news.heads, ", "));
      return std::nullopt;
    case kind::let_go:
      say("left {}{}{}", news.head, news.why.empty() ? "" : ": ", news.why);
      return 0;
  }
  return status_broken;
}

void follow_head(node_door& door, const actors::member_news& news) {
  using kind = actors::member_news::kind;
  if (news.what == kind::joined) door.joined(news.head);
  if (news.what == kind::lost) door.lost();
}

void tell_of_door(const result<std::string>& told) {
  if (told)
    say("door {}", *told);
  else
    fmt::print(stderr, "tandem: no door here: {}\n", told.error().detail);
}

}  // namespace

int run_join(const join_options& options) {
  auto began = steady::now();  // looking for a head
  const auto& configuration = options.configuration;
  const auto heads = actors::parse_heads(options.heads);
  if (!heads) return refuse(heads.error());
  // It says one line a state; the head's log has the rest.
  const auto origin = configuration.origins.find("log.level");
  const bool is_usual = origin != configuration.origins.end() && origin->second == "default";
  if (auto level = parse_log_level(is_usual ? "warning" : configuration.log.level); !level)
    return refuse(level.error());
  else if (auto opened = open_log(*level, configuration.log.file); !opened)
    return refuse(opened.error());
  process_signals signals;  // before any thread is made

  auto devices = devices_from(configuration.devices.list, configuration.devices.threads_per_device,
                              configuration.devices.memory_fraction, this_machine());
  if (devices) devices = grouped(*std::move(devices), configuration.model.tensor_parallel);
  if (!devices) return refuse(devices.error());
  const auto host = transport::local_host_towards(heads->front());
  if (!host) return refuse(host.error());
  const auto link = link_options(configuration, *devices, *host);
  if (!link) return refuse(link.error());
  auto config = linked_config(*link);
  if (!config) return refuse(config.error());
  const auto cache_bytes = parse_bytes(configuration.cluster.cache_bytes);
  if (!cache_bytes) return refuse(cache_bytes.error());
  const std::string name = options.name.empty() ? host_name() : options.name;

  news_box box;
  actor_house house(*std::move(config));
  auto& system = house.system();
  const auto address = actors::link_of(system).address();
  actors::member_options joining;
  joining.heads = *heads;
  joining.name = name;
  joining.address = address;
  joining.devices = devices_of(name, *std::move(devices));
  joining.workers_for = workers_of(options, name, *link, static_cast<std::uint64_t>(*cache_bytes));
  const auto borrower = house_borrower(house, static_cast<std::uint64_t>(*cache_bytes));
  if (!joining.workers_for) joining.devices.borrower = borrower;
  joining.tell = [&](const actors::member_news& news) {
    box.put(news);
    signals.wake();
  };
  const auto member = house.house(system.spawn(actors::member, std::move(joining)));
  node_door door(house, configuration, borrower, [&signals] { signals.wake(); });
  house.house(system.spawn(actors::supervisor, house.housed(),
                           [&signals](std::string why) { signals.broken(std::move(why)); }));
  std::optional<int> status;
  const auto over = [&] {
    while (auto news = box.take()) {
      follow_head(door, *news);
      if (!status) status = tell_user(*news, *heads, name, address, began);
    }
    if (const auto told = door.look()) tell_of_door(*told);
    return status.has_value();
  };
  auto outcome = signals.wait(over);
  const auto patience =
      steady::now() + std::chrono::milliseconds(configuration.server.drain_timeout_ms);
  if (outcome == process_signals::outcome::ask_to_end) caf::anon_send(member, actors::leave_now{});
  if (outcome != process_signals::outcome::broken) {
    // What runs through this door runs on elsewhere, and its end is still waited for.
    door.drain();
    outcome = signals.wait_until(patience, [&] { return over() && door.is_idle(); });
  }
  door.close();
  if (status) return *status;
  if (outcome == process_signals::outcome::broken) {
    fmt::print(stderr, "tandem: {}\n", signals.why());
    return status_broken;
  }
  log_warning("the head did not let this node go in {} ms: its requests are replayed elsewhere",
              configuration.server.drain_timeout_ms);
  return 0;
}

}  // namespace tandem::gateway
