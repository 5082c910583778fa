// What the gateway adds: requests a second and latency in front of a handler that answers at once
// with 600 bytes of JSON. One thread serves, one drives N keep-alive connections, all in here.
//   bench_gateway --connections 1 --seconds 3        the time added to one request
//   bench_gateway --connections 32 --seconds 3       the most it carries
//   bench_gateway --listen 8123 --seconds 30         for wrk -t1 -c32 -d10
//   http://127.0.0.1:8123/v1/now
#include "gateway/server.hpp"

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using clock_type = std::chrono::steady_clock;
using namespace tandem;
using namespace tandem::gateway;

constexpr std::size_t answer_bytes = 600;

// A chat request as clients send it.
const std::string request_body =
    R"({"model":"SmolLM2-135M-Instruct","messages":[{"role":"user","content":"Say hello."}]})";

std::shared_ptr<router> routes_that_answer_at_once() {
  const auto answer_now = [](const std::shared_ptr<const http_request>&,
                             const std::shared_ptr<responder>& to) {
    http_response response;
    response.body = R"({"id":"chatcmpl-1","object":"chat.completion","text":")";
    response.body.resize(answer_bytes - 2, 'x');
    response.body += "\"}";
    to->send(std::move(response));
  };
  auto routes = std::make_shared<router>();
  for (const char* method : {"GET", "POST"}) {
    route now;
    now.method = method;
    now.path = "/v1/now";
    now.handler = answer_now;
    routes->add(std::move(now));
  }
  return routes;
}

// One connection that asks again as soon as it has its answer.
class asker : public std::enable_shared_from_this<asker> {
 public:
  asker(asio::io_context& io, std::vector<float>& latencies_us, const std::atomic<bool>& measuring)
      : stream_(io), latencies_us_(latencies_us), measuring_(measuring) {
    request_.method(http::verb::post);
    request_.target("/v1/now");
    request_.version(11);
    request_.set(http::field::host, "localhost");
    request_.set(http::field::content_type, "application/json");
    request_.body() = request_body;
    request_.prepare_payload();
  }

  void start(const tcp::endpoint& at) {
    stream_.socket().connect(at);
    stream_.socket().set_option(tcp::no_delay(true));
    ask();
  }

 private:
  void ask() {
    asked_at_ = clock_type::now();
    http::async_write(stream_, request_,
                      [self = shared_from_this()](beast::error_code ec, std::size_t) {
                        if (!ec) self->hear();
                      });
  }

  void hear() {
    response_ = {};
    http::async_read(stream_, buffer_, response_,
                     [self = shared_from_this()](beast::error_code ec, std::size_t) {
                       if (!ec) self->heard();
                     });
  }

  void heard() {
    if (measuring_) {
      const std::chrono::duration<float, std::micro> took = clock_type::now() - asked_at_;
      latencies_us_.push_back(took.count());
    }
    ask();
  }

  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  http::request<http::string_body> request_;
  http::response<http::string_body> response_;
  clock_type::time_point asked_at_;
  std::vector<float>& latencies_us_;
  const std::atomic<bool>& measuring_;
};

struct figures {
  double requests_per_s = 0;
  double p50_us = 0;
  double p99_us = 0;
};

figures measure(int port, int connections, double seconds) {
  asio::io_context io{1};
  std::vector<float> latencies_us;
  std::atomic<bool> measuring = false;
  const tcp::endpoint at(asio::ip::address_v4::loopback(), static_cast<std::uint16_t>(port));
  for (int index = 0; index < connections; ++index)
    std::make_shared<asker>(io, latencies_us, measuring)->start(at);
  io.run_for(std::chrono::milliseconds(200));  // warm
  measuring = true;
  const auto begun = clock_type::now();
  io.run_for(std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::duration<double>(seconds)));
  const std::chrono::duration<double> took = clock_type::now() - begun;
  if (latencies_us.empty()) return {};
  std::sort(latencies_us.begin(), latencies_us.end());
  const auto share = [&](double part) {
    return latencies_us[static_cast<std::size_t>(part *
                                                 static_cast<double>(latencies_us.size() - 1))];
  };
  return {static_cast<double>(latencies_us.size()) / took.count(), share(0.5), share(0.99)};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "requests a second and latency of the gateway before a handler that answers at once"};
  std::vector<int> connections = {1, 32};
  double seconds = 3;
  int threads = 1;
  int listen = 0;
  bool json = false;
  app.add_option("--connections", connections, "keep-alive connections, one run for each number");
  app.add_option("--seconds", seconds, "how long each run lasts");
  app.add_option("--threads", threads, "of the server");
  app.add_option("--listen", listen, "only serve, on this port, for another load generator");
  app.add_flag("--json", json, "one JSON object a line");
  CLI11_PARSE(app, argc, argv);

  server_settings settings;
  settings.port = listen;
  settings.threads = threads;
  auto made = server::create(settings, routes_that_answer_at_once());
  if (!made) {
    fmt::print(stderr, "{}\n", made.error().detail);
    return 1;
  }
  server& running = **made;
  running.start();
  if (listen != 0) {
    fmt::print("http://127.0.0.1:{}/v1/now for {} s\n", running.port(), seconds);
    std::fflush(stdout);
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    return 0;
  }
  for (const int count : connections) {
    const figures seen = measure(running.port(), count, seconds);
    if (json) {
      fmt::print(R"({{"bench":"gateway","connections":{},"threads":{},"requests_per_s":{:.0f},)"
                 R"("p50_us":{:.1f},"p99_us":{:.1f}}})"
                 "\n",
                 count, threads, seen.requests_per_s, seen.p50_us, seen.p99_us);
    } else {
      fmt::print("{:4} connections: {:7.0f} requests/s, p50 {:7.1f} us, p99 {:7.1f} us\n", count,
                 seen.requests_per_s, seen.p50_us, seen.p99_us);
    }
    if (seen.requests_per_s == 0) return 1;
  }
  return 0;
}
