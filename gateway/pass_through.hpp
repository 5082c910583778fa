// Requests that only the head can answer, passed on to its HTTP address: bodies stream both ways,
// with bounds; the client's headers go along, but for those of the connection. Without a head they
// are answered 503.
#pragma once

#include "gateway/http.hpp"

#include <chrono>
#include <memory>
#include <string>

namespace tandem::gateway {

struct head_place {
  std::string host;
  int port = 0;
  std::string certificate;  // PEM: what it shows must be this; empty: plain HTTP
  bool operator==(const head_place&) const = default;
};

class pass_through {
 public:
  // Sockets and a thread of their own. A head that is silent for longer than `silence` is given up.
  static std::shared_ptr<pass_through> start(std::chrono::milliseconds silence);
  virtual ~pass_through() = default;  // cuts what is under way

  virtual void follow(head_place head) = 0;
  // `why` is answered until it follows another.
  virtual void lose(std::string why) = 0;
  // Ends the answers that are under way, so that the server can drain.
  virtual void cut() = 0;

  // Of a route whose requests come whole.
  static http_handler handler(const std::shared_ptr<pass_through>& through);
  // Of one whose bodies are passed on as they come; with `handler`.
  static sink_opener uploads(const std::shared_ptr<pass_through>& through);

 private:
  virtual void pass(std::shared_ptr<const http_request> request, std::shared_ptr<responder> to) = 0;
  virtual result<std::shared_ptr<body_sink>> open_body(const http_request& head) = 0;
};

}  // namespace tandem::gateway
