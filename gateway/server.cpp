#include "gateway/server.hpp"

#include "gateway/server_state.hpp"
#include "gateway/session.hpp"
#include "gateway/tls.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <thread>
#include <vector>

namespace tandem::gateway {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// Connections beyond the cap that are told so; further ones are closed without a word.
constexpr std::uint64_t refused_open_max = 128;
// When the process is out of file descriptors, accepting again at once would only spin.
constexpr std::chrono::milliseconds accept_pause{100};

result<tcp::endpoint> endpoint_of(const server_settings& settings) {
  if (settings.port < 0 || settings.port > 65535)
    return error{errc::bad_request,
                 fmt::format("port {} is not between 0 and 65535", settings.port), "server.port"};
  asio::io_context io;
  error_code ec;
  const auto found = tcp::resolver(io).resolve(settings.host, std::to_string(settings.port),
                                               tcp::resolver::passive, ec);
  if (ec || found.empty())
    return error{errc::bad_request,
                 fmt::format("the host {} is no address of this machine ({}): try 127.0.0.1 or "
                             "0.0.0.0",
                             settings.host, ec.message()),
                 "server.host"};
  // "localhost" is often both; clients try IPv4 too, and some only that.
  const auto v4 = std::find_if(found.begin(), found.end(), [](const auto& entry) {
    return entry.endpoint().address().is_v4();
  });
  return v4 != found.end() ? v4->endpoint() : found.begin()->endpoint();
}

error listen_error(const tcp::endpoint& at, const error_code& why) {
  const std::string address = endpoint_text(at);
  if (why == asio::error::address_in_use)
    return {errc::conflict,
            fmt::format("{} is taken by another program: stop it or choose another port", address),
            "server.port"};
  if (why == asio::error::access_denied)
    return {
        errc::forbidden,
        fmt::format("{} may not be listened on by this user: choose a port above 1023", address),
        "server.port"};
  return {errc::io, fmt::format("cannot listen on {}: {}", address, why.message()), "server.host"};
}

class beast_server final : public server {
 public:
  beast_server(const server_settings& settings, std::shared_ptr<const router> routes, doors keys,
               std::shared_ptr<asio::ssl::context> tls)
      : state_(std::make_shared<server_state>(settings, std::move(routes), std::move(keys))),
        tls_(std::move(tls)) {
    for (int index = 0; index < std::max(1, settings.threads); ++index)
      lanes_.push_back(std::make_shared<lane>());
    acceptor_.emplace(lanes_.front()->io);
    accept_timer_.emplace(lanes_.front()->io);
  }

  ~beast_server() override { stop(); }

  result<void> listen(const tcp::endpoint& at) {
    error_code ec;
    acceptor_->open(at.protocol(), ec);
    if (!ec) acceptor_->set_option(tcp::acceptor::reuse_address(true), ec);
    if (!ec && at.address().is_v6()) acceptor_->set_option(asio::ip::v6_only(false), ec);
    if (!ec) acceptor_->bind(at, ec);
    if (!ec) acceptor_->listen(asio::socket_base::max_listen_connections, ec);
    if (ec) return listen_error(at, ec);
    port_ = acceptor_->local_endpoint().port();
    return {};
  }

  void start() override {
    ensure(threads_.empty() && !stopped_, "a server is started once");
    accept();
    for (const auto& home : lanes_) threads_.emplace_back([home] { run(*home); });
  }

  int port() const override { return port_; }

  void drain() override {
    if (stopped_) return;
    state_->draining = true;
    asio::post(lanes_.front()->io, [this] { close_acceptor(); });
    for (const auto& home : lanes_)
      asio::post(home->io, [home] { for_each_session(*home, &session::drain); });
  }

  void stop() override {
    if (stopped_.exchange(true)) return;
    state_->draining = true;
    for (const std::thread& thread : threads_)
      ensure(thread.get_id() != std::this_thread::get_id(), "stop() from the server's own thread");
    if (threads_.empty()) close_acceptor();
    for (const auto& home : lanes_)
      asio::post(home->io, [this, home] {
        if (home == lanes_.front()) close_acceptor();
        for_each_session(*home, &session::close);
        home->io.stop();
      });
    for (std::thread& thread : threads_) thread.join();
    state_->heavy.stop();
    state_->disk.stop();
    state_->heavy.join();
    state_->disk.join();
    // What the closed sockets still had under way holds its sessions: let it end.
    for (const auto& home : lanes_) {
      home->io.restart();
      home->io.poll();
      for_each_session(*home, &session::close);
      home->io.restart();
      home->io.poll();
    }
  }

  server_counts counts() const override {
    return {.connections_open = state_->connections_open,
            .connections_total = state_->connections_total,
            .connections_refused = state_->connections_refused,
            .requests_total = state_->requests_total,
            .requests_active = state_->requests_active,
            .clients_gone = state_->clients_gone};
  }

  std::string metrics() const override { return state_->metrics.text(counts()); }

 private:
  static void run(lane& home) {
    const auto work = asio::make_work_guard(home.io);
    while (!home.io.stopped()) {
      try {
        home.io.run();
      } catch (const std::exception& why) {
        // Out of memory, most likely: the one connection is lost, the others go on.
        spdlog::error("a connection's handler threw: {}", why.what());
      }
    }
  }

  static void for_each_session(lane& home, void (session::*act)()) {
    // A copy: sessions that close take themselves off the list.
    const auto sessions = home.sessions;
    for (const auto& [key, weak] : sessions)
      if (const auto one = weak.lock()) ((*one).*act)();
  }

  void close_acceptor() {
    error_code ignored;
    acceptor_->close(ignored);
    accept_timer_->cancel();
  }

  void accept() {
    const auto home = lanes_[next_lane_++ % lanes_.size()];
    acceptor_->async_accept(home->io, [this, home](error_code ec, tcp::socket socket) {
      if (!acceptor_->is_open()) return;
      if (!ec) {
        admit(home, std::move(socket));
      } else if (ec != asio::error::connection_aborted) {
        spdlog::warn("cannot accept connections: {}", ec.message());
        accept_timer_->expires_after(accept_pause);
        accept_timer_->async_wait([this](error_code cancelled) {
          if (!cancelled) accept();
        });
        return;
      }
      accept();
    });
  }

  void admit(const std::shared_ptr<lane>& home, tcp::socket socket) {
    ++state_->connections_total;
    const auto open_max = static_cast<std::uint64_t>(std::max(1, state_->settings.max_connections));
    const std::uint64_t open = state_->connections_open;
    const bool refused = open >= open_max;
    if (refused) ++state_->connections_refused;
    error_code ec;
    const tcp::endpoint peer = socket.remote_endpoint(ec);
    if (ec || open >= open_max + refused_open_max) return;
    socket.set_option(tcp::no_delay(true), ec);
    auto stream = tls_ ? tls_stream(std::move(socket), *tls_) : plain_stream(std::move(socket));
    auto admitted = std::make_shared<session>(home, state_, std::move(stream), peer);
    asio::dispatch(home->io, [admitted = std::move(admitted), refused] {
      refused ? admitted->start_refused() : admitted->start();
    });
  }

  const std::shared_ptr<server_state> state_;
  const std::shared_ptr<asio::ssl::context> tls_;
  std::vector<std::shared_ptr<lane>> lanes_;
  std::vector<std::thread> threads_;
  std::optional<tcp::acceptor> acceptor_;  // the first lane's, as its timer
  std::optional<asio::steady_timer> accept_timer_;
  std::size_t next_lane_ = 0;
  int port_ = 0;
  std::atomic<bool> stopped_{false};
};

}  // namespace

result<std::unique_ptr<server>> server::create(const server_settings& settings,
                                               std::shared_ptr<const router> routes) {
  auto keys = doors::open(settings);
  if (!keys) return keys.error();
  return create(settings, std::move(routes), std::move(*keys));
}

result<std::unique_ptr<server>> server::create(const server_settings& settings,
                                               std::shared_ptr<const router> routes, doors keys) {
  ensure(routes != nullptr, "a server without routes");
  auto endpoint = endpoint_of(settings);
  if (!endpoint) return endpoint.error();
  if (!endpoint->address().is_loopback() && !keys.admin_key_needed())
    return error{
        errc::forbidden,
        fmt::format("listening on {} needs an admin key: write one into a file and name it "
                    "as server.admin_key_file, or listen on 127.0.0.1",
                    settings.host),
        "server.admin_key_file"};
  auto tls = tls_context(settings);
  if (!tls) return tls.error();
  auto made =
      std::make_unique<beast_server>(settings, std::move(routes), std::move(keys), std::move(*tls));
  if (auto listening = made->listen(*endpoint); !listening) return listening.error();
  return std::unique_ptr<server>(std::move(made));
}

}  // namespace tandem::gateway
