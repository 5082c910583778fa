#include "gateway/nodes/doorkeeper.hpp"

#include "gateway/keys.hpp"
#include "runtime/shelf/listing.hpp"

#include <fstream>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

namespace tandem::gateway {
namespace {

actors::door_keys told(const std::shared_ptr<key_file>& from) {
  actors::door_keys keys;
  keys.are_needed = from != nullptr;
  if (!from) return keys;
  for (const auto& hash : from->hashes()) keys.hashes.emplace_back(hash.begin(), hash.end());
  return keys;
}

result<std::shared_ptr<key_file>> open_keys(const std::string& path) {
  if (path.empty()) return std::shared_ptr<key_file>();
  auto opened = key_file::open(path);
  if (!opened) return opened.error();
  return std::shared_ptr<key_file>(*std::move(opened));
}

}  // namespace

result<std::function<actors::door_terms()>> terms_for_doors(const settings& configuration,
                                                            const served_model& model,
                                                            std::string chat_template, int port,
                                                            int inside_max) {
  const auto& server = configuration.server;
  auto api_keys = open_keys(server.api_keys_file);
  if (!api_keys) return api_keys.error();
  auto admin_keys = open_keys(server.admin_key_file);
  if (!admin_keys) return admin_keys.error();

  actors::door_terms terms;
  terms.is_wanted = server.gateways == "all";
  if (server.host != "0.0.0.0" && server.host != "::") terms.http_host = server.host;
  terms.http_port = port;
  terms.machine = shelf::this_machines_name();
  if (!server.tls_cert.empty()) {
    std::ifstream file(server.tls_cert, std::ios::binary);
    if (!file)
      return error{errc::io, "the certificate " + server.tls_cert + " cannot be read",
                   "server.tls_cert"};
    terms.certificate.assign(std::istreambuf_iterator<char>(file), {});
  }
  terms.model_id = model.id;
  terms.model_path = configuration.model.path;
  terms.chat_template = std::move(chat_template);
  terms.created = model.created;
  terms.inside_max = inside_max;
  return std::function<actors::door_terms()>(
      [terms = std::move(terms), api = *api_keys, admin = *admin_keys] {
        auto now = terms;
        now.api_keys = told(api);
        now.admin_keys = told(admin);
        return now;
      });
}

}  // namespace tandem::gateway
