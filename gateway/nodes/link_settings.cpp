#include "gateway/nodes/link_settings.hpp"

#include "actors/link.hpp"
#include "actors/wire_types.hpp"
#include "gateway/version.hpp"
#include "runtime/transport/handshake.hpp"

#include <fmt/format.h>
#include <caf/all.hpp>

#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string_view>
#include <utility>

namespace tandem::gateway {
namespace {

constexpr int missed_heartbeats = 3;
constexpr std::size_t secret_bytes_max = 4096;

// "-": from the standard input, so that it stands in no command line and no file.
result<std::string> read_secret(const std::string& path) {
  std::ifstream file;
  std::istream& from = path == "-" ? std::cin : file;
  if (path != "-") file.open(path, std::ios::binary);
  const auto cannot = [&](std::string_view why) {
    return error{errc::bad_file, fmt::format("cluster.secret_file '{}': {}", path, why),
                 "cluster.secret_file"};
  };
  if (!from) return cannot("cannot be read");
  std::string secret(std::istreambuf_iterator<char>(from), {});
  while (!secret.empty() && (secret.back() == '\n' || secret.back() == '\r')) secret.pop_back();
  if (secret.size() < transport::min_secret_bytes)
    return cannot(fmt::format("has {} characters, which can be guessed: put in {} or more",
                              secret.size(), transport::min_secret_bytes));
  if (secret.size() > secret_bytes_max)
    return cannot(fmt::format("is longer than {} characters", secret_bytes_max));
  return secret;
}

std::string made_up_secret() {
  std::random_device random;
  std::string secret;
  while (secret.size() < 64) secret += fmt::format("{:08x}", random());
  return secret;
}

// A thread that spins would take the time of a device's core.
bool all_cores_taken(const std::vector<device_spec>& devices) {
  std::size_t threads = 0;
  for (const auto& device : devices) threads += device.cores.size();
  return threads >= this_machine().cores.size();
}

}  // namespace

bool in_workers(const settings& configuration) {
  return configuration.devices.isolation == "process";
}

bool wants_link(const settings& configuration) {
  return in_workers(configuration) || !configuration.cluster.listen.empty();
}

result<transport::fabric_options> link_options(const settings& configuration,
                                               const std::vector<device_spec>& devices,
                                               const std::string& usual_host) {
  const auto& cluster = configuration.cluster;
  transport::fabric_options options;
  const bool is_private = cluster.listen.empty() && usual_host.empty();
  options.listen = !cluster.listen.empty() ? cluster.listen
                   : is_private            ? "127.0.0.1:0"
                                           : usual_host + ":0";
  options.advertise = cluster.advertise;
  options.build = fmt::format("{} ({})", version, commit);
  options.silent_after = std::chrono::milliseconds(cluster.heartbeat_ms * missed_heartbeats);
  options.block = all_cores_taken(devices);
  if (!cluster.secret_file.empty()) {
    auto secret = read_secret(cluster.secret_file);
    if (!secret) return secret.error();
    options.secret = *std::move(secret);
  } else if (is_private) {
    options.secret = made_up_secret();
  }
  return options;
}

result<std::unique_ptr<caf::actor_system_config>> linked_config(transport::fabric_options options) {
  auto config = std::make_unique<caf::actor_system_config>();
  actors::add_wire_types(*config);
  if (auto loaded = actors::load_link(*config, std::move(options)); !loaded) return loaded.error();
  return config;
}

}  // namespace tandem::gateway
