#include "gateway/nodes/routes.hpp"

#include "gateway/http_error.hpp"
#include "gateway/openai/endpoint.hpp"
#include "runtime/text/value.hpp"

#include <utility>

namespace tandem::gateway {
namespace {

using openai::answering;
using text::value;

constexpr const char* node_shape =
    R"({"type":"object","required":["name","address","devices","state","head","since_ms","why"],"properties":{"name":{"type":"string"},"address":{"type":["string","null"]},"devices":{"type":"array","items":{"type":"string"}},"state":{"enum":["up","draining","left"]},"head":{"type":"boolean"},"since_ms":{"type":"integer"},"why":{"type":["string","null"]}}})";

constexpr const char* drained_shape =
    R"({"type":"object","required":["name","drained"],"properties":{"name":{"type":"string"},"drained":{"const":true}}})";

value text_or_null(const std::string& words) { return words.empty() ? value() : value(words); }

value node_json(const actors::node_report& node) {
  value::array devices;
  for (const auto& device : node.devices) devices.emplace_back(device);
  return value::object{{"name", node.node},
                       {"address", text_or_null(node.address)},
                       {"devices", std::move(devices)},
                       {"state", actors::name_of(node.now)},
                       {"head", node.is_head},
                       {"since_ms", node.since_ms},
                       {"why", text_or_null(node.why)}};
}

void send_json(const std::shared_ptr<responder>& to, const value& body) {
  http_response response;
  response.headers.emplace_back("cache-control", "no-store");
  response.body = body.to_json();
  to->send(std::move(response));
}

http_handler list_nodes(std::shared_ptr<actors::node_board> board) {
  return answering(
      [board = std::move(board)](const http_request&, const std::shared_ptr<responder>& to) {
        value::array nodes;
        for (const auto& node : board->newest()) nodes.push_back(node_json(node));
        send_json(to, value::object{{"object", "list"}, {"data", std::move(nodes)}});
        return result<void>();
      });
}

http_handler drain_node(actors::roster_actor roster) {
  return answering([roster = std::move(roster)](const http_request& request,
                                                const std::shared_ptr<responder>& to) {
    const auto node = request.path_parameters.at(0);
    caf::anon_send(roster, actors::submit_drain{
                               node, [to, node](result<void> done) {
                                 if (!done) return to->send(error_response(done.error()));
                                 send_json(to, value::object{{"name", node}, {"drained", true}});
                               }});
    return result<void>();
  });
}

}  // namespace

void add_node_routes(router& to, std::shared_ptr<actors::node_board> board,
                     actors::roster_actor roster) {
  to.add({"GET", "/admin/nodes", access::admin,
          "The nodes of the cluster with their devices; those that left last are listed, too.", "",
          std::string(R"({"type":"object","required":["object","data"],"properties":)") +
              R"({"object":{"const":"list"},"data":{"type":"array","items":)" + node_shape + "}}}",
          list_nodes(std::move(board))});
  to.add({"POST", "/admin/nodes/{id}/drain", access::admin,
          "Takes a node out: its requests go on elsewhere, then it ends. Answered once its devices "
          "are idle.",
          "", drained_shape, drain_node(std::move(roster))});
}

}  // namespace tandem::gateway
