#include "gateway/store_opening.hpp"

#include "runtime/postgres_url.hpp"
#include "runtime/store/postgres_store.hpp"
#include "runtime/transport/address.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <string>

namespace tandem::gateway {
namespace {

constexpr int status_another_leads = 1;

std::string called(const settings& configuration, int port) {
  auto host = configuration.server.host;
  std::array<char, 256> name{};
  const bool everywhere = host == "0.0.0.0" || host == "::";
  if (everywhere && ::gethostname(name.data(), name.size() - 1) == 0) host = name.data();
  if (host.find(':') != std::string::npos) host = "[" + host + "]";
  return fmt::format("{}:{}", host, port);
}

// Where nodes will find this head once it leads; empty: nowhere, or not known before it does.
std::string joins_at(const settings& configuration) {
  const auto& cluster = configuration.cluster;
  if (cluster.listen.empty()) return {};
  const auto listens = transport::address::parse(cluster.listen);
  auto told = cluster.advertise.empty() ? listens : transport::address::parse(cluster.advertise);
  if (!listens || !told || told->is_any()) return {};
  if (told->port == 0) told->port = listens->port;
  return told->port == 0 ? std::string() : told->to_string();
}

// Actors, devices and streams are left as they are: ending them in order could still write.
[[noreturn]] void end_at_once(const error& why) {
  fmt::print(stderr, "tandem: {}\n", why.detail);
  std::fflush(stderr);
  ::_exit(status_another_leads);
}

}  // namespace

result<opened_store> open_store(const settings& configuration, process_signals& signals) {
  const auto folder = store_folder(configuration.store);
  if (!folder) return folder.error();
  if (!names_postgres(configuration.store.url)) {
    auto opened = store::store::open(*folder);
    if (!opened) return opened.error();
    return opened_store{nullptr, *std::move(opened)};
  }
  store::seat_options how;
  how.url = configuration.store.url;
  how.called = called(configuration, configuration.server.port);
  how.joins_at = joins_at(configuration);
  how.pause = [&signals](std::chrono::milliseconds length) {
    const auto until = std::chrono::steady_clock::now() + length;
    return signals.wait([until] { return std::chrono::steady_clock::now() >= until; }) ==
           process_signals::outcome::holds;
  };
  how.tell = [](const std::string& line) {
    fmt::print("standby: {}\n", line);
    std::fflush(stdout);
  };
  how.lost = end_at_once;
  auto seat = store::leader_seat::take(std::move(how));
  if (!seat) return seat.error();
  opened_store opened{*std::move(seat), nullptr};
  fmt::print("leads (epoch {})\n", opened.seat->epoch());
  std::fflush(stdout);
  auto kept =
      store::open_postgres_store({configuration.store.url, *folder, opened.seat, end_at_once});
  if (!kept) return kept.error();
  opened.kept = *std::move(kept);
  return opened;
}

void tell_address(const opened_store& store, const settings& configuration, int port) {
  if (store.seat) store.seat->call_it(called(configuration, port));
}

lead_watch::lead_watch(const opened_store& store, const actors::roster_actor& roster)
    : seat_(store.seat) {
  if (seat_)
    seat_->watch([roster](const store::lead_news& news) {
      caf::anon_send(roster, actors::heads_changed{news.sure, news.others});
    });
}

lead_watch::~lead_watch() {
  if (seat_) seat_->watch(nullptr);
}

}  // namespace tandem::gateway
