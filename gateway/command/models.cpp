// `tandem models`: what is served, and what lies on this machine's disk.
#include "gateway/command/commands.hpp"
#include "gateway/command/model_path.hpp"
#include "gateway/command/print.hpp"

#include <ostream>

namespace tandem::gateway::command {
namespace {

using text::value;

std::string text_of(const value& object, std::string_view key) {
  const value* found = object.find(key);
  if (!found || found->is_null()) return "";
  return found->if_string() ? *found->if_string() : found->to_json();
}

value local_as_json(const std::vector<local_model>& models) {
  value::array list;
  for (const local_model& model : models) {
    list.emplace_back(value::object{{"name", model.name},
                                    {"path", model.path.string()},
                                    {"bytes", static_cast<std::int64_t>(model.bytes)}});
  }
  return list;
}

void print_models(const console& io, const std::string& address, const result<value>& served,
                  const std::vector<local_model>& local) {
  std::vector<std::vector<std::string>> rows = {{"MODEL", "WHERE", "SIZE", "CONTEXT"}};
  const value* list = served ? served->find("data") : nullptr;
  if (list && list->if_array()) {
    for (const value& model : *list->if_array()) {
      rows.push_back({text_of(model, "id"), "served at " + address, text_of(model, "precision"),
                      text_of(model, "max_model_len")});
    }
  }
  for (const local_model& model : local) {
    rows.push_back({model.name, model.path.string(), human_bytes(model.bytes), ""});
  }
  print_table(io.out, rows);
  if (!served) io.out << "not served: " << served.error().detail << "\n";
  if (local.empty()) io.out << "none on disk: get one with `tandem pull REPO`\n";
  io.out << std::flush;
}

int run_models(const invocation& call) {
  auto client = connect(call);
  if (!client) return refuse_usage(call.io, client.error().detail);
  const auto served = client->get_json("/v1/models");
  // No server is an answer; one that refuses (a wrong key, no tandem) is an error.
  if (!served && served.error().code != errc::unavailable) return refuse(call.io, served.error());
  const auto local = local_models(call.io.home / "models");
  if (!call.json) {
    print_models(call.io, client->address().text, served, local);
    return done;
  }
  const value* list = served ? served->find("data") : nullptr;
  call.io.out << value(value::object{{"address", client->address().text},
                                     {"served", list ? *list : value()},
                                     {"local", local_as_json(local)}})
                     .to_json()
              << std::endl;
  return done;
}

}  // namespace

void add_models(CLI::App& app, invocation& call) {
  CLI::App* command =
      add_command(app, "models", "What can be served: at the address, and on this disk",
                  "tandem models --json");
  add_server_options(*command, call);
  add_json_option(*command, call);
  command->callback([&call] { call.status = run_models(call); });
}

}  // namespace tandem::gateway::command
