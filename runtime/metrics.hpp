// Numbers about a running program, in Prometheus' text format (exposition format 0.0.4). Updating a
// number is an atomic add, from any thread; reading all of them is one walk.
//
// Names end in their unit: _total for counters, _seconds, _bytes, _ratio for others.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::metrics {

// Only grows.
class counter {
 public:
  void add(double amount = 1.0);
  // The total as counted elsewhere, which never shrinks: a smaller one is ignored.
  void raise_to(double total);
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0.0};
};

class gauge {
 public:
  void set(double value) { value_.store(value, std::memory_order_relaxed); }
  void add(double amount);
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0.0};
};

class histogram {
 public:
  // `bounds` grow; a bucket counts values up to and including its bound.
  explicit histogram(std::span<const double> bounds);
  void observe(double value);

  const std::vector<double>& bounds() const { return bounds_; }
  // One per bound and one for what is above all: not cumulative.
  std::uint64_t count_in(std::size_t bucket) const;
  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  std::vector<double> bounds_;
  std::vector<std::atomic<std::uint64_t>> counts_;
  std::atomic<double> sum_{0.0};
};

// 1 ms to 2 min, for times to the first token, queues and whole requests.
std::span<const double> latency_bounds();
// 0.1 ms to 10 s, for the time between two tokens and for steps.
std::span<const double> token_latency_bounds();
// 1 to 131,072 by powers of two, for lengths in tokens.
std::span<const double> token_count_bounds();

using labels = std::vector<std::pair<std::string, std::string>>;

// All numbers of a program or of one of its parts. What it hands out lives as long as it does;
// asking for the same name and labels again gives the same number.
class registry {
 public:
  counter& add_counter(std::string_view name, std::string_view help, const labels& of = {});
  gauge& add_gauge(std::string_view name, std::string_view help, const labels& of = {});
  histogram& add_histogram(std::string_view name, std::string_view help,
                           std::span<const double> bounds, const labels& of = {});

  // Content type: text/plain; version=0.0.4; charset=utf-8
  std::string text() const;

 private:
  struct family {
    std::string kind;
    std::string help;
    // By labels as they are written: `model="a",device="cpu:0"`.
    std::map<std::string, std::unique_ptr<counter>, std::less<>> counters;
    std::map<std::string, std::unique_ptr<gauge>, std::less<>> gauges;
    std::map<std::string, std::unique_ptr<histogram>, std::less<>> histograms;
  };
  family& family_of(std::string_view name, std::string_view help, std::string_view kind);

  mutable std::mutex mutex_;
  std::map<std::string, family, std::less<>> families_;
};

}  // namespace tandem::metrics
