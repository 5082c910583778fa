#include "gateway/pages/routes.hpp"

#include "gateway/json_writer.hpp"
#include "gateway/pages/pages.hpp"
#include "gateway/version.hpp"

#include <openssl/evp.h>

#include <array>

namespace tandem::gateway {

namespace pages {

namespace {

// " 'sha256-…'" (Content Security Policy, level 3, section 2.3.1).
std::string script_source(std::string_view script) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned digest_bytes = 0;
  ensure(EVP_Digest(script.data(), script.size(), digest.data(), &digest_bytes, EVP_sha256(),
                    nullptr) == 1,
         "SHA-256 failed");
  std::array<unsigned char, 2 * EVP_MAX_MD_SIZE> base64{};
  const int length = EVP_EncodeBlock(base64.data(), digest.data(), static_cast<int>(digest_bytes));
  return " 'sha256-" + std::string(base64.begin(), base64.begin() + length) + "'";
}

// The page's own scripts, by what they are: no other can run, however it came into the page.
std::string script_sources(std::string_view html) {
  constexpr std::string_view open = "<script>";
  constexpr std::string_view close = "</script>";
  std::string sources;
  for (std::size_t at = html.find(open); at != std::string_view::npos; at = html.find(open, at)) {
    at += open.size();
    const std::size_t end = html.find(close, at);
    ensure(end != std::string_view::npos, "a script of the page does not end");
    sources += script_source(html.substr(at, end - at));
    at = end;
  }
  return sources;
}

}  // namespace

http_handler version_page() {
  std::string body = R"({"version":)";
  append_json_string(body, version);
  return constant_json(body + "}");
}

http_handler metrics(std::shared_ptr<engine> door, std::function<std::string()> server_metrics) {
  return [door = std::move(door), server_metrics = std::move(server_metrics)](
             const std::shared_ptr<const http_request>&, const std::shared_ptr<responder>& to) {
    http_response response;
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    response.body = door->metrics();
    if (!response.body.empty() && response.body.back() != '\n') response.body += '\n';
    if (server_metrics) response.body += server_metrics();
    to->send(std::move(response));
  };
}

http_handler cluster(std::shared_ptr<engine> door) {
  return [door = std::move(door)](const std::shared_ptr<const http_request>&,
                                  const std::shared_ptr<responder>& to) {
    http_response response;
    response.headers.emplace_back("cache-control", "no-store");
    response.body = door->status_json();
    to->send(std::move(response));
  };
}

http_handler front_page() {
  // Model output is shown as text only; were it ever taken for markup, nothing could be loaded.
  std::string policy =
      "default-src 'none'; connect-src 'self'; img-src data:; style-src "
      "'unsafe-inline'; script-src" +
      script_sources(page_html()) + "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
  return [policy = std::move(policy)](const std::shared_ptr<const http_request>&,
                                      const std::shared_ptr<responder>& to) {
    http_response response;
    response.content_type = "text/html; charset=utf-8";
    response.headers.emplace_back("content-security-policy", policy);
    response.headers.emplace_back("x-content-type-options", "nosniff");
    response.headers.emplace_back("cache-control", "no-cache");
    response.body = page_html();
    to->send(std::move(response));
  };
}

http_handler constant_json(std::string body) {
  return [body = std::make_shared<const std::string>(std::move(body))](
             const std::shared_ptr<const http_request>&, const std::shared_ptr<responder>& to) {
    http_response response;
    response.body = *body;
    to->send(std::move(response));
  };
}

}  // namespace pages

void add_probe_routes(router& to, std::shared_ptr<engine> door,
                      std::function<std::string()> server_metrics) {
  constexpr const char* health_reply =
      R"({"type":"object","required":["status"],"properties":{"status":{"enum":["starting","ready","draining","failed"]},"reason":{"type":["string","null"]}}})";
  constexpr const char* version_reply =
      R"({"type":"object","required":["version"],"properties":{"version":{"type":"string"}}})";
  to.add({"GET", "/", access::open, "The page: what runs, and a box to chat.", "", "",
          pages::front_page()});
  to.add({"GET", "/health/live", access::open, "200 while the process is worth keeping.", "",
          health_reply, pages::live(door)});
  to.add({"GET", "/health/ready", access::open, "200 when requests are taken, else 503.", "",
          health_reply, pages::ready(door)});
  to.add({"GET", "/health", access::open, "The same as /health/ready.", "", health_reply,
          pages::ready(door)});
  to.add({"GET", "/version", access::open, "The version of this server.", "", version_reply,
          pages::version_page()});
  to.add({"GET", "/metrics", access::open, "Prometheus text.", "", "",
          pages::metrics(std::move(door), std::move(server_metrics))});
}

void add_page_routes(router& to, std::shared_ptr<engine> door, const settings& s,
                     std::function<std::string()> server_metrics) {
  add_probe_routes(to, door, std::move(server_metrics));
  to.add({"GET", "/admin/cluster", access::admin,
          "Devices with their leases and memory, queues and counts.", "", R"({"type":"object"})",
          pages::cluster(std::move(door))});
  to.add({"GET", "/admin/settings", access::admin, "Every setting and where it came from.", "",
          R"({"type":"array","items":{"type":"object"}})",
          pages::constant_json(show_settings_json(s))});
  route document{"GET", "/openapi.json",        access::open, "This document.",
                 "",    R"({"type":"object"})", nullptr};
  std::vector<route> all = to.routes();
  all.push_back(document);
  document.handler = pages::constant_json(pages::openapi(all));
  to.add(std::move(document));
}

}  // namespace tandem::gateway
