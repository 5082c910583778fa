// What the server counts, as Prometheus text.
#pragma once

#include "gateway/http.hpp"
#include "gateway/server.hpp"

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>

namespace tandem::gateway {

class server_metrics {
 public:
  // Any thread. `matched` null: no such route. Status 499: the client left before the answer's end.
  void record(const route* matched, std::string_view method, int status, double seconds);

  std::string text(const server_counts& counts) const;

 private:
  static constexpr std::array<double, 14> bounds_s = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                                      0.25,  0.5,    1,     2.5,  5,     10,   60};
  struct histogram {
    std::array<std::uint64_t, bounds_s.size() + 1> counts{};
    double sum_s = 0;
  };

  mutable std::mutex mutex_;
  // By the route's pattern, which lives as long as the server's router, method and status.
  std::map<std::tuple<std::string_view, std::string_view, int>, std::uint64_t> requests_;
  std::map<std::string_view, histogram> durations_;
};

}  // namespace tandem::gateway
