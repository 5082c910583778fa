// A node in a process of its own, for tests: it publishes a worker and waits to be told to leave.
// With a FOLDER it goes there first, and publishes a library of its models/tiny and jobs, and a
// doorkeeper for doors that serve that model.
//   link_node LISTEN TRANSPORTS SILENT_AFTER_MS SECRET|- [FOLDER]
#include "actors/coordinator.hpp"
#include "actors/doorkeeper.hpp"
#include "actors/library.hpp"
#include "actors/serve_coordinator.hpp"
#include "actors/wire_types.hpp"
#include "tests/support/link_world.hpp"

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

using namespace tandem;

namespace {

actors::door_terms terms() {
  actors::door_terms terms;
  terms.is_wanted = true;
  terms.model_id = "tiny";
  terms.model_path = "models/tiny";
  terms.api_keys = {true, {"a hash"}};
  return terms;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5 && argc != 6) return 2;
  const bool has_library = argc == 6;
  if (has_library) std::filesystem::current_path(argv[5]);
  transport::fabric_options options;
  options.listen = argv[1];
  options.transports = argv[2];
  options.silent_after = std::chrono::milliseconds(std::stol(argv[3]));
  if (std::string(argv[4]) != "-") options.secret = argv[4];
  test::link_config config;
  actors::add_wire_types(config);
  const auto loaded = actors::load_link(config, options);
  if (!loaded) {
    std::printf("failed %s\n", loaded.error().detail.c_str());
    return 1;
  }
  caf::actor_system system(config);
  auto& net = actors::link_of(system);
  const auto worker = system.spawn(test::worker);
  net.publish("worker", worker);
  std::vector<caf::actor> housed{caf::actor_cast<caf::actor>(worker)};
  const auto house = [&housed](auto one) {
    housed.push_back(caf::actor_cast<caf::actor>(one));
    return one;
  };
  if (has_library) {
    net.publish(actors::library_name,
                house(system.spawn<caf::detached>(actors::library,
                                                  shelf::shelf_roots{"models/tiny", "jobs"})));
    const auto book = house(system.spawn(actors::coordinator, actors::coordinator_options{}));
    const auto server =
        house(system.spawn(actors::serve_coordinator, actors::serve_options{}, book));
    net.publish(actors::doorkeeper_name, house(system.spawn(actors::doorkeeper, terms, server)));
  }
  std::printf("listening %s\n", net.address().c_str());
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);)
    if (line == "leave") break;
  for (const auto& one : housed) caf::anon_send_exit(one, caf::exit_reason::user_shutdown);
  housed.clear();
}
