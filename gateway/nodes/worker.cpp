#include "gateway/nodes/worker.hpp"

#include "actors/link.hpp"
#include "actors/member.hpp"
#include "actors/supervisor.hpp"
#include "gateway/nodes/actor_house.hpp"
#include "gateway/nodes/borrowing.hpp"
#include "gateway/nodes/link_settings.hpp"
#include "gateway/platform.hpp"
#include "runtime/log.hpp"
#include "runtime/text/value.hpp"
#include "runtime/worker_process.hpp"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <poll.h>
#include <unistd.h>

namespace tandem::gateway {
namespace {

using text::value;

constexpr std::size_t line_bytes_max = 64 << 10;

class process_of_device final : public actors::worker {
 public:
  explicit process_of_device(std::unique_ptr<worker_process> process)
      : process_(std::move(process)) {}
  void ask_to_end() override { process_->ask_to_end(); }
  std::uint64_t process_id() const override { return static_cast<std::uint64_t>(process_->pid()); }

 private:
  std::unique_ptr<worker_process> process_;
};

// Nothing here is worth an orderly end: what it held is the head's to give to others.
[[noreturn]] void end_with(int status, std::string_view why) {
  fmt::print(stderr, "{}\n", why);
  std::fflush(stderr);
  ::_exit(status);
}

result<std::string> read_line(int from) {
  std::string line;
  for (char c = 0; line.size() < line_bytes_max; line += c) {
    if (::read(from, &c, 1) != 1) return error{errc::io, "its input ended before its settings", ""};
    if (c == '\n') return line;
  }
  return error{errc::too_large, fmt::format("settings of {} bytes", line.size()), ""};
}

void wait_for_end_of(int input) {
  std::array<char, 256> ignored;
  while (::read(input, ignored.data(), ignored.size()) > 0) {
  }
}

bool closes_within(int input, std::chrono::milliseconds time) {
  pollfd waited{input, 0, 0};
  return ::poll(&waited, 1, static_cast<int>(time.count())) == 1 && (waited.revents & POLLHUP) != 0;
}

void hear(const actors::member_news& news) {
  using kind = actors::member_news::kind;
  switch (news.what) {
    case kind::joined:
      return log_debug("the head lends this device");
    case kind::lost:
      // Its process ends first of all where it is ending: then there is nothing to tell.
      if (closes_within(STDIN_FILENO, std::chrono::seconds(1))) ::_exit(0);
      return end_with(1, news.why);
    case kind::turned_away:
      return end_with(1, news.why);
    case kind::let_go:
      return end_with(0, news.why);
  }
}

value as_value(const device_spec& device) {
  value::array cores;
  for (const int core : device.cores) cores.emplace_back(core);
  return value::object{{"name", device.name},
                       {"cores", std::move(cores)},
                       {"gpu", std::int64_t{device.gpu}},
                       {"memory_bytes", static_cast<std::int64_t>(device.memory_bytes)}};
}

std::optional<device_spec> device_from(const value* what) {
  if (!what) return {};
  const auto* name = what->find("name");
  const auto* cores = what->find("cores");
  const auto* gpu = what->find("gpu");
  const auto* bytes = what->find("memory_bytes");
  if (!name || !name->if_string() || !cores || !cores->if_array() || !gpu || !gpu->if_int() ||
      !bytes || !bytes->if_int() || *bytes->if_int() < 0)
    return {};
  device_spec device;
  device.name = *name->if_string();
  for (const auto& core : *cores->if_array())
    if (core.if_int()) device.cores.push_back(static_cast<int>(*core.if_int()));
  device.gpu = static_cast<int>(*gpu->if_int());
  device.memory_bytes = static_cast<std::uint64_t>(*bytes->if_int());
  if (device.cores.empty() && device.gpu < 0) return {};
  return device;
}

}  // namespace

std::string to_line(const worker_settings& what) {
  value::array ranks;
  for (const auto& rank : what.device.ranks) ranks.emplace_back(as_value(rank));
  const auto& link = what.link;
  return value(value::object{{"device", as_value(what.device)},
                             {"ranks", std::move(ranks)},
                             {"head", what.head},
                             {"node", what.node},
                             {"log_level", what.log_level},
                             {"cache_bytes", static_cast<std::int64_t>(what.cache_bytes)},
                             {"listen", link.listen},
                             {"cluster", link.cluster},
                             {"build", link.build},
                             {"secret", link.secret},
                             {"silent_after_ms", std::int64_t{link.silent_after.count()}},
                             {"block", link.block}})
             .to_json() +
         "\n";
}

result<worker_settings> worker_settings_from(std::string_view line) {
  const auto read = value::from_json(line);
  if (!read) return read.error();
  std::string missing;
  const auto text = [&](std::string_view key) {
    const auto* found = read->find(key);
    if (found && found->if_string()) return *found->if_string();
    missing = key;
    return std::string();
  };
  const auto number = [&](std::string_view key) {
    const auto* found = read->find(key);
    if (found && found->if_int() && *found->if_int() >= 0) return *found->if_int();
    missing = key;
    return std::int64_t{0};
  };
  worker_settings what;
  if (auto device = device_from(read->find("device")))
    what.device = *std::move(device);
  else
    missing = "device";
  if (const auto* ranks = read->find("ranks"); ranks && ranks->if_array()) {
    for (const auto& one : *ranks->if_array()) {
      if (auto rank = device_from(&one))
        what.device.ranks.push_back(*std::move(rank));
      else
        missing = "ranks";
    }
  } else {
    missing = "ranks";
  }
  what.head = text("head");
  what.node = text("node");
  what.log_level = text("log_level");
  what.cache_bytes = static_cast<std::uint64_t>(number("cache_bytes"));
  what.link.listen = text("listen");
  what.link.cluster = text("cluster");
  what.link.build = text("build");
  what.link.secret = text("secret");
  what.link.silent_after = std::chrono::milliseconds(number("silent_after_ms"));
  if (const auto* block = read->find("block"); block && block->if_bool())
    what.link.block = *block->if_bool();
  else
    missing = "block";
  if (!missing.empty())
    return error{errc::bad_request, fmt::format("a worker's settings lack {}", missing), missing};
  return what;
}

actors::worker_factory start_workers(worker_settings common) {
  return [common = std::move(common)](const device_spec& device,
                                      std::function<void(std::uint64_t, std::string)> ended)
             -> result<std::unique_ptr<actors::worker>> {
    auto settings = common;
    settings.device = device;
    auto started =
        worker_process::start({device.name, {"worker", device.name}, to_line(settings)},
                              [ended = std::move(ended)](pid_t process, std::string how) {
                                ended(static_cast<std::uint64_t>(process), std::move(how));
                              });
    if (!started) return started.error();
    log_debug("device {} is process {}", device.name, (*started)->pid());
    return std::unique_ptr<actors::worker>(
        std::make_unique<process_of_device>(*std::move(started)));
  };
}

int run_worker() {
  const auto line = read_line(STDIN_FILENO);
  if (!line) end_with(2, "a worker is started by `tandem up`: " + line.error().detail);
  const auto settings = worker_settings_from(*line);
  if (!settings) end_with(2, "a worker is started by `tandem up`: " + settings.error().detail);
  if (const auto level = parse_log_level(settings->log_level); level) (void)open_log(*level, "");
  auto config = linked_config(settings->link);
  if (!config) end_with(1, config.error().detail);

  actor_house house(*std::move(config));
  auto& system = house.system();
  actors::member_options options;
  options.heads = {settings->head};
  options.name = settings->node;
  options.address = actors::link_of(system).address();
  options.is_worker = true;
  options.devices.devices = {settings->device};
  options.devices.make = serve::make_lending_device;
  if (settings->cache_bytes > 0)
    options.devices.borrower = house_borrower(house, settings->cache_bytes);
  // A fault on a device poisons its process: the node starts another.
  options.devices.restarts_max = 0;
  options.devices.gave_up = [](const std::string&, const error& why) { end_with(4, why.detail); };
  options.tell = hear;
  auto member = house.house(system.spawn(actors::member, std::move(options)));
  house.house(
      system.spawn(actors::supervisor, house.housed(), [](std::string why) { end_with(3, why); }));
  wait_for_end_of(STDIN_FILENO);
  ::_exit(0);
}

}  // namespace tandem::gateway
