// What all sessions of a server share, and the thread ("lane") that one session lives on. A session
// never leaves its lane, so nothing in it is locked.
#pragma once

#include "gateway/http.hpp"
#include "gateway/keys.hpp"
#include "gateway/server_metrics.hpp"
#include "runtime/settings.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>

namespace tandem::gateway {

class session;

struct lane {
  boost::asio::io_context io{1};
  std::unordered_map<session*, std::weak_ptr<session>> sessions;  // touched by its thread only
};

struct server_state {
  // Bodies larger than this are handled on the pool: parsing them would hold up everybody else.
  static constexpr std::size_t heavy_body_bytes = 64 << 10;
  static constexpr int heavy_queue_max = 64;

  server_state(const server_settings& s, std::shared_ptr<const router> r, doors d)
      : settings(s), routes(std::move(r)), keys(std::move(d)) {}

  const server_settings settings;
  const std::shared_ptr<const router> routes;
  const doors keys;
  server_metrics metrics;

  std::atomic<bool> draining{false};
  std::atomic<std::uint64_t> connections_open{0};
  std::atomic<std::uint64_t> connections_total{0};
  std::atomic<std::uint64_t> connections_refused{0};
  std::atomic<std::uint64_t> requests_total{0};
  std::atomic<std::uint64_t> requests_active{0};
  std::atomic<std::uint64_t> clients_gone{0};
  std::atomic<std::int64_t> unfinished_body_bytes{0};  // of requests still being read
  // Shared with the pool's tasks, which must not hold the state: it owns their pool.
  const std::shared_ptr<std::atomic<int>> heavy_queued = std::make_shared<std::atomic<int>>(0);
  boost::asio::thread_pool heavy{1};
  // What waits for a disk: bodies on their way into sinks, answers out of sources. Two, so that one
  // upload's last sync does not hold up all others.
  static constexpr int uploads_max = 64;
  const std::shared_ptr<std::atomic<int>> uploads = std::make_shared<std::atomic<int>>(0);
  boost::asio::thread_pool disk{2};
};

}  // namespace tandem::gateway
