// HTTP as the endpoints see it: a request that was read whole and checked, and a responder that may
// be kept and answered from any thread. Sockets, TLS, limits and timers are the server's business
// (server.hpp, session.cpp).
#pragma once

#include "runtime/result.hpp"
#include "runtime/settings.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::gateway {

using header_list = std::vector<std::pair<std::string, std::string>>;

// Takes a body piece by piece as it comes, where a route would rather not hold it whole. Called by
// one thread at a time, never the connection's own: it may wait for a disk. What it refuses is the
// request's answer. Destroyed without `finish` when the client left or was refused: it must leave
// nothing behind then.
class body_sink {
 public:
  virtual ~body_sink() = default;
  virtual result<void> write(std::string_view bytes) = 0;
  virtual result<void> finish() = 0;  // the body is complete; the handler is called next
};

// The next piece of an answer, empty at its end. Called by one thread at a time, never the
// connection's own.
using body_source = std::function<result<std::string>()>;

struct http_request {
  std::string method;                        // "POST"
  std::string path;                          // decoded, without the query: "/v1/models/x"
  std::string query;                         // raw, without '?'
  header_list headers;                       // names in lower case
  std::string body;                          // whole; padded for simdjson: capacity >= size + 64
  std::shared_ptr<body_sink> sink;           // of a route with open_sink: has the body instead
  std::string request_id;                    // the client's x-request-id when it is sane, else ours
  std::string peer;                          // "127.0.0.1:51234"
  std::vector<std::string> path_parameters;  // what stood in for {..} in the route, in order

  // The header's value; empty when missing.
  std::string_view header(std::string_view lower_case_name) const;
  // A query parameter, decoded; empty when missing.
  std::string query_parameter(std::string_view name) const;
};

struct http_response {
  int status = 200;
  std::string content_type = "application/json";
  header_list headers;
  std::string body;
};

// Answers one request, exactly once: either `send`, or `begin`, any number of `write`s and `end`.
// Thread-safe; calls after the client is gone do nothing. A responder dropped without an answer
// answers 500.
class responder {
 public:
  virtual ~responder() = default;
  virtual void send(http_response response) = 0;
  // A chunked answer whose end is not known yet (server-sent events).
  virtual void begin(int status, std::string content_type, header_list headers) = 0;
  virtual void write(std::string bytes) = 0;
  virtual void end() = 0;
  // As `send`, with a body of `bytes` bytes that is made as the client takes it. One that ends
  // early or fails cuts the connection.
  virtual void send_pieces(http_response head, std::uint64_t bytes, body_source source) = 0;
  // Called once, from the server's thread, when all that was written so far has been taken towards
  // the client (at once when it has been, never when it is gone): write more then. Who writes on
  // without asking is cut off when too much waits.
  virtual void on_taken(std::function<void()> callback) = 0;
  // From now until the answer ends, after every server.heartbeat_ms of silence send these bytes:
  // a comment in a stream. When nothing was begun yet, the answer is begun first (status 200,
  // `content_type`): white space before a late JSON body, after which `send` only appends its body.
  virtual void heartbeat(std::string bytes, std::string content_type) = 0;
  // Called at most once, from the server's thread, when the client goes away (or is cut off for
  // reading too slowly) before the answer's end. At once if it is gone already.
  virtual void on_gone(std::function<void()> callback) = 0;
};

using http_handler =
    std::function<void(std::shared_ptr<const http_request>, std::shared_ptr<responder>)>;

enum class access { open, user, admin };  // no key; api_keys_file; admin_key_file

// Decides by the head of a request whether its body is wanted, and where it goes.
using sink_opener = std::function<result<std::shared_ptr<body_sink>>(const http_request&)>;

// A route as /openapi.json shows it. `path` may hold {name} segments; a last segment {name...}
// takes the rest of the path, slashes included (model ids hold slashes).
struct route {
  std::string method;
  std::string path;
  access needs = access::user;
  std::string summary;
  std::string request_schema;   // JSON, for /openapi.json; empty: no body
  std::string response_schema;  // JSON; empty: plain
  http_handler handler;
  std::string request_type = "application/json";
  sink_opener open_sink = {};       // set: bodies are streamed, and handled off the connection
  std::int64_t body_bytes_max = 0;  // 0: server.max_body_bytes
  bool waits = false;  // the handler waits for a disk: it is called off the connection's thread
};

// Routes are fixed before the server starts. An unknown path is 404, a known one with another
// method 405 with Allow; OPTIONS and HEAD are answered by the server itself.
class router {
 public:
  void add(route r);
  const std::vector<route>& routes() const { return routes_; }

  struct match {
    const route* found = nullptr;  // null: see `allowed`
    std::vector<std::string> path_parameters;
    std::vector<std::string> allowed;  // methods, when only the method was wrong
  };
  match find(std::string_view method, std::string_view path) const;

 private:
  std::vector<route> routes_;
};

}  // namespace tandem::gateway
