// A small blocking HTTP/1.1 client for the commands: one kept connection, http and https, bodies in
// pieces as they arrive, and a bound on every wait.
#pragma once

#include "runtime/result.hpp"
#include "runtime/text/value.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::gateway::command {

struct http_address {
  bool tls = false;
  std::string host;
  std::string port;
  std::string prefix;  // path before every target, without a last '/'
  std::string text;    // as errors name it: "http://127.0.0.1:8000"
  bool operator==(const http_address&) const = default;
};
// "http://host:port/prefix", "https://host", "host:port", "[::1]:8000".
result<http_address> parse_address(std::string_view text);

// A file as the part "file" of a multipart form, behind the other fields.
struct file_upload {
  std::filesystem::path file;
  std::vector<std::pair<std::string, std::string>> fields;  // {"purpose", "fine-tune"}
  std::function<void(std::uint64_t bytes_sent, std::uint64_t bytes_total)> on_progress;
};

struct http_call {
  std::string method = "GET";
  std::string target;                             // "/v1/models"
  std::string body;                               // JSON; sent when not empty
  std::optional<file_upload> upload;              // instead of `body`
  std::chrono::milliseconds silence_max{30'000};  // the longest wait for something to happen
  // A good (2xx) answer's body in pieces as they arrive; false: enough, drop the connection.
  std::function<bool(std::string_view)> on_bytes;
  // Looked at several times a second; true gives up with errc::cancelled.
  std::function<bool()> stopped;
};

struct http_answer {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;                                          // empty when on_bytes took it

  std::string_view header(std::string_view lower_case_name) const;
};

class http_client {
 public:
  static result<http_client> create(std::string_view address, std::string api_key);
  http_client(http_client&&) noexcept;
  http_client& operator=(http_client&&) noexcept;
  ~http_client();

  // Any status is an answer; an error is a server that cannot be reached, breaks off or is silent.
  result<http_answer> exchange(const http_call& call);

  // The JSON of a good answer. Another status is an error with the server's own message.
  result<text::value> get_json(std::string target);
  result<text::value> post_json(std::string target, std::string body);

  const http_address& address() const;

 private:
  struct state;
  explicit http_client(std::unique_ptr<state> s);
  std::unique_ptr<state> state_;
};

// What a refused answer says: OpenAI's error.message when there is one.
error refusal_of(const http_address& address, const http_answer& answer);

}  // namespace tandem::gateway::command
