#include "runtime/metrics.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <limits>
#include <thread>

using namespace tandem::metrics;

TEST_CASE("counters and gauges are written with their help and type, by name") {
  registry r;
  r.add_gauge("tandem_running_sequences", "Sequences that have a slot.").set(3);
  r.add_counter("tandem_generated_tokens_total", "Tokens sampled.").add(41);
  r.add_counter("tandem_generated_tokens_total", "Tokens sampled.").add();
  CHECK(r.text() ==
        "# HELP tandem_generated_tokens_total Tokens sampled.\n"
        "# TYPE tandem_generated_tokens_total counter\n"
        "tandem_generated_tokens_total 42\n"
        "# HELP tandem_running_sequences Sequences that have a slot.\n"
        "# TYPE tandem_running_sequences gauge\n"
        "tandem_running_sequences 3\n");
}

TEST_CASE("each set of labels is a number of its own, under one help line") {
  registry r;
  counter& a = r.add_counter("requests_total", "Requests.", {{"model", "a"}, {"status", "200"}});
  counter& b = r.add_counter("requests_total", "Requests.", {{"model", "a"}, {"status", "429"}});
  a.add(2);
  b.add(5);
  CHECK(&a == &r.add_counter("requests_total", "Requests.", {{"model", "a"}, {"status", "200"}}));
  CHECK(r.text() ==
        "# HELP requests_total Requests.\n"
        "# TYPE requests_total counter\n"
        "requests_total{model=\"a\",status=\"200\"} 2\n"
        "requests_total{model=\"a\",status=\"429\"} 5\n");
}

TEST_CASE("a label's value cannot break out of its quotes, nor a help text of its line") {
  registry r;
  r.add_gauge("g", "back\\slash and\nnewline", {{"model", "a\"} 9\nfake 1\\"}}).set(1);
  CHECK(r.text() ==
        "# HELP g back\\\\slash and\\nnewline\n"
        "# TYPE g gauge\n"
        "g{model=\"a\\\"} 9\\nfake 1\\\\\"} 1\n");
}

TEST_CASE("a histogram's buckets add up, and its bounds belong to them") {
  registry r;
  const std::array bounds{0.1, 1.0, 2.5};
  histogram& h = r.add_histogram("wait_seconds", "Waited.", bounds, {{"model", "m"}});
  for (const double v : {0.05, 0.1, 0.5, 2.5, 7.0}) h.observe(v);
  CHECK(r.text() ==
        "# HELP wait_seconds Waited.\n"
        "# TYPE wait_seconds histogram\n"
        "wait_seconds_bucket{model=\"m\",le=\"0.1\"} 2\n"
        "wait_seconds_bucket{model=\"m\",le=\"1\"} 3\n"
        "wait_seconds_bucket{model=\"m\",le=\"2.5\"} 4\n"
        "wait_seconds_bucket{model=\"m\",le=\"+Inf\"} 5\n"
        "wait_seconds_sum{model=\"m\"} 10.15\n"
        "wait_seconds_count{model=\"m\"} 5\n");
}

TEST_CASE("numbers that JSON lacks have Prometheus' names") {
  registry r;
  gauge& g = r.add_gauge("g", "G.");
  g.set(std::numeric_limits<double>::infinity());
  CHECK(r.text().ends_with("g +Inf\n"));
  g.set(std::numeric_limits<double>::quiet_NaN());
  CHECK(r.text().ends_with("g NaN\n"));
  g.set(-0.25);
  CHECK(r.text().ends_with("g -0.25\n"));
}

TEST_CASE("a counter follows a total counted elsewhere and never falls") {
  counter c;
  c.raise_to(10);
  c.raise_to(7);
  CHECK(c.value() == 10);
}

TEST_CASE("numbers are whole when many threads write them") {
  registry r;
  counter& c = r.add_counter("c_total", "C.");
  histogram& h = r.add_histogram("h_seconds", "H.", latency_bounds());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10'000; ++i) {
        c.add();
        h.observe(0.5);
      }
    });
  }
  for (auto& t : threads) t.join();
  CHECK(c.value() == 40'000);
  CHECK(h.sum() == 20'000);
}

TEST_CASE("the shipped bounds grow") {
  for (const auto bounds : {latency_bounds(), token_latency_bounds(), token_count_bounds()}) {
    CHECK(histogram(bounds).bounds().size() == bounds.size());
  }
}
