#include "gateway/pass_through.hpp"

#include "gateway/http_error.hpp"
#include "gateway/passage.hpp"

#include <fmt/format.h>
#include <openssl/ssl.h>
#include <spdlog/spdlog.h>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>

#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace tandem::gateway {
namespace {

namespace asio = boost::asio;
namespace ssl = asio::ssl;

constexpr std::size_t passages_max = 256;
constexpr std::string_view end_of_one = "-----END CERTIFICATE-----\n";

// A door's mark on what it passes on: where it comes to a door, that one has no head there.
bool was_passed_on(const http_request& request) { return request.header("via") == via_door; }

// What answers must show this very certificate, the first of its chain; its names do not matter, it
// was told over the link.
result<std::shared_ptr<ssl::context>> trusting(const std::string& certificate) {
  if (certificate.empty()) return std::shared_ptr<ssl::context>();
  boost::system::error_code ec;
  auto context = std::make_shared<ssl::context>(ssl::context::tls_client);
  context->set_options(
      ssl::context::default_workarounds | ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1, ec);
  const std::string_view chain = certificate;
  context->add_certificate_authority(
      asio::buffer(chain.substr(0, chain.find(end_of_one) + end_of_one.size())), ec);
  if (ec)
    return error{errc::bad_file, "the head's certificate cannot be read: " + ec.message(), ""};
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context->native_handle()),
                              X509_V_FLAG_PARTIAL_CHAIN);
  context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert, ec);
  return context;
}

class passed_body final : public body_sink {
 public:
  passed_body(asio::io_context& io, std::shared_ptr<passage> way) : io_(io), way_(std::move(way)) {}
  ~passed_body() override {
    if (finished_) return;
    asio::post(io_, [way = way_] { way->close(); });
  }
  passed_body(const passed_body&) = delete;
  passed_body& operator=(const passed_body&) = delete;

  result<void> write(std::string_view bytes) override { return way_->send_piece(bytes); }
  result<void> finish() override {
    finished_ = true;
    way_->send_end();
    return {};
  }
  const std::shared_ptr<passage>& way() const { return way_; }

 private:
  asio::io_context& io_;
  const std::shared_ptr<passage> way_;
  bool finished_ = false;
};

class passing final : public pass_through {
 public:
  explicit passing(std::chrono::milliseconds silence) : silence_(silence) {
    thread_ = std::thread([this] { run(); });
  }
  ~passing() override {
    asio::post(io_, [this] {
      for (const auto& way : open_ways()) way->close();
      work_.reset();
    });
    thread_.join();
  }

  void follow(head_place head) override {
    const std::lock_guard lock(mutex_);
    if (line_ && line_->place == head) return;
    auto tls = trusting(head.certificate);
    if (!tls) {
      spdlog::warn("{}", tls.error().detail);
      line_.reset();
      why_ = tls.error().detail;
      return;
    }
    line_ = head_line{std::move(head), *std::move(tls)};
  }
  void lose(std::string why) override {
    const std::lock_guard lock(mutex_);
    line_.reset();
    why_ = std::move(why);
  }
  void cut() override {
    asio::post(io_, [this] {
      for (const auto& way : open_ways()) way->cut_stream();
    });
  }

  void pass(std::shared_ptr<const http_request> request, std::shared_ptr<responder> to) override {
    if (request->sink) {
      const auto body = std::dynamic_pointer_cast<passed_body>(request->sink);
      ensure(body != nullptr, "a body that was not opened here");
      return asio::post(io_, [way = body->way(), to = std::move(to)] { way->answer(to); });
    }
    auto line = way_to_head(*request);
    if (!line) return to->send(error_response(line.error()));
    auto out = request_head(*request, line->place, false) + request->body;
    asio::post(io_, [this, line = *std::move(line), out = std::move(out), to = std::move(to)] {
      auto way = begin(line);
      if (!way) return to->send(error_response(way.error()));
      (*way)->answer(to);
      (*way)->start(out);
    });
  }

  result<std::shared_ptr<body_sink>> open_body(const http_request& head) override {
    auto line = way_to_head(head);
    if (!line) return line.error();
    auto way = begin(*line);
    if (!way) return way.error();
    asio::post(io_, [way = *way, out = request_head(head, line->place, true)] { way->start(out); });
    return std::shared_ptr<body_sink>(std::make_shared<passed_body>(io_, *way));
  }

 private:
  void run() {
    while (!io_.stopped()) {
      try {
        io_.run();
      } catch (const std::exception& why) {
        spdlog::error("passing a request on to the head threw: {}", why.what());
      }
    }
  }

  result<head_line> way_to_head(const http_request& request) {
    const std::lock_guard lock(mutex_);
    if (!line_) return error{errc::unavailable, "this is answered by the head: " + why_, ""};
    if (!was_passed_on(request)) return *line_;
    return error{errc::unavailable,
                 fmt::format("this is answered by the head, but at {}:{} there is a node's door: "
                             "set server.host at the head to an address that nodes reach",
                             line_->place.host, line_->place.port),
                 ""};
  }

  std::vector<std::shared_ptr<passage>> open_ways() {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<passage>> open;
    for (const auto& weak : ways_)
      if (auto way = weak.lock()) open.push_back(std::move(way));
    return open;
  }

  result<std::shared_ptr<passage>> begin(const head_line& line) {
    const std::lock_guard lock(mutex_);
    std::erase_if(ways_, [](const auto& weak) { return weak.expired(); });
    if (ways_.size() >= passages_max)
      return error{
          errc::overloaded,
          fmt::format("{} requests are with the head already: try again in a moment", passages_max),
          ""};
    auto way = std::make_shared<passage>(io_, line, silence_);
    ways_.push_back(way);
    return way;
  }

  const std::chrono::milliseconds silence_;
  asio::io_context io_{1};
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work_{
      asio::make_work_guard(io_)};
  std::mutex mutex_;
  std::optional<head_line> line_;  // empty: no head
  std::string why_ = "it has not been found yet";
  std::vector<std::weak_ptr<passage>> ways_;
  std::thread thread_;
};

}  // namespace

std::shared_ptr<pass_through> pass_through::start(std::chrono::milliseconds silence) {
  return std::make_shared<passing>(silence);
}

http_handler pass_through::handler(const std::shared_ptr<pass_through>& through) {
  return [through](std::shared_ptr<const http_request> request, std::shared_ptr<responder> to) {
    through->pass(std::move(request), std::move(to));
  };
}

sink_opener pass_through::uploads(const std::shared_ptr<pass_through>& through) {
  return [through](const http_request& head) { return through->open_body(head); };
}

}  // namespace tandem::gateway
