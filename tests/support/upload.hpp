// An upload as the server carries it to the route: head, pieces, end.
#pragma once

#include "gateway/http_error.hpp"
#include "tests/support/gateway_world.hpp"
#include "tests/support/store_world.hpp"

#include <string>
#include <utility>
#include <vector>

namespace tandem::test {

using form_fields = std::vector<std::pair<std::string, std::string>>;

// `file` gets the filename; others none.
inline std::string form_body(const form_fields& fields,
                             const std::string& filename = "data.jsonl") {
  std::string body;
  for (const auto& [name, value] : fields) {
    body += "--xyz\r\nContent-Disposition: form-data; name=\"" + name + "\"";
    if (name == "file") body += "; filename=\"" + filename + "\"\r\nContent-Type: text/plain";
    body += "\r\n\r\n" + value + "\r\n";
  }
  return body + "--xyz--\r\n";
}

inline std::shared_ptr<fake_responder> upload_body(
    gateway_world& world, const std::string& body,
    const std::string& content_type = "multipart/form-data; boundary=xyz", std::size_t piece = 7) {
  const auto to = std::make_shared<fake_responder>();
  const auto refused = [&](const error& why) {
    to->send(gateway::error_response(why));
    return to;
  };
  const auto* route = world.routes.find("POST", "/v1/files").found;
  REQUIRE(route != nullptr);
  REQUIRE(route->open_sink);
  auto request = std::make_shared<gateway::http_request>();
  request->method = "POST";
  request->headers.emplace_back("content-type", content_type);
  auto sink = route->open_sink(*request);
  if (!sink) return refused(sink.error());
  for (std::size_t at = 0; at < body.size(); at += piece)
    if (auto taken = (*sink)->write(std::string_view(body).substr(at, piece)); !taken)
      return refused(taken.error());
  if (auto done = (*sink)->finish(); !done) return refused(done.error());
  request->sink = std::move(*sink);
  route->handler(std::move(request), to);
  return to;
}

inline std::shared_ptr<fake_responder> upload(gateway_world& world, const form_fields& fields,
                                              const std::string& filename = "data.jsonl") {
  return upload_body(world, form_body(fields, filename));
}

}  // namespace tandem::test
