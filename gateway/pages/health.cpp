// The probes: is the process alive, does it take requests.
#include "gateway/json_writer.hpp"
#include "gateway/pages/pages.hpp"

namespace tandem::gateway::pages {

namespace {

std::string_view name_of(readiness state) {
  switch (state) {
    case readiness::starting:
      return "starting";
    case readiness::ready:
      return "ready";
    case readiness::draining:
      return "draining";
    case readiness::failed:
      break;
  }
  return "failed";
}

http_response state_response(const engine& door, bool good) {
  const readiness state = door.state();
  http_response response;
  response.status = good ? 200 : 503;
  response.headers.emplace_back("cache-control", "no-store");
  if (!good && state != readiness::failed) response.headers.emplace_back("retry-after", "1");
  response.body = R"({"status":)";
  append_json_string(response.body, name_of(state));
  response.body += R"(,"reason":)";
  if (state == readiness::ready)
    response.body += "null";
  else
    append_json_string(response.body, door.state_detail());
  response.body += '}';
  return response;
}

}  // namespace

http_handler live(std::shared_ptr<engine> door) {
  return [door = std::move(door)](const std::shared_ptr<const http_request>&,
                                  const std::shared_ptr<responder>& to) {
    to->send(state_response(*door, door->state() != readiness::failed));
  };
}

http_handler ready(std::shared_ptr<engine> door) {
  return [door = std::move(door)](const std::shared_ptr<const http_request>&,
                                  const std::shared_ptr<responder>& to) {
    to->send(state_response(*door, door->state() == readiness::ready));
  };
}

}  // namespace tandem::gateway::pages
