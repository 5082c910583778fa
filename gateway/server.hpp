// The HTTP/1.1 server: listener, sessions, TLS, keys, CORS, limits and the pool for heavy bodies.
#pragma once

#include "gateway/http.hpp"
#include "gateway/keys.hpp"
#include "runtime/result.hpp"
#include "runtime/settings.hpp"

#include <cstdint>
#include <memory>
#include <string>

namespace tandem::gateway {

struct server_counts {
  std::uint64_t connections_open = 0;
  std::uint64_t connections_total = 0;
  std::uint64_t connections_refused = 0;
  std::uint64_t requests_total = 0;
  std::uint64_t requests_active = 0;
  std::uint64_t clients_gone = 0;  // left, or were cut off, before their answer's end
};

class server {
 public:
  // Binds and listens, so that a taken port or a broken certificate is an error here with a line
  // that says what to do. Nothing is accepted before `start`.
  static result<std::unique_ptr<server>> create(const server_settings& settings,
                                                std::shared_ptr<const router> routes);
  // With these keys instead of those that the settings name.
  static result<std::unique_ptr<server>> create(const server_settings& settings,
                                                std::shared_ptr<const router> routes, doors keys);
  virtual ~server() = default;

  virtual void start() = 0;      // threads begin to accept
  virtual int port() const = 0;  // the real one when the setting was 0
  // No new connections; idle ones are closed, each running answer is the last of its connection.
  virtual void drain() = 0;
  virtual void stop() = 0;  // cuts what is left; joins the threads
  virtual server_counts counts() const = 0;
  virtual std::string metrics() const = 0;  // Prometheus text: counts, by route and status
};

}  // namespace tandem::gateway
