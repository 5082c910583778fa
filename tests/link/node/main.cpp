// A node in a process of its own, for tests: it publishes a worker and waits to be told to leave.
// With a FOLDER it goes there first, and publishes a library of its models/tiny and jobs too.
//   link_node LISTEN TRANSPORTS SILENT_AFTER_MS SECRET|- [FOLDER]
#include "actors/library.hpp"
#include "actors/wire_types.hpp"
#include "tests/support/link_world.hpp"

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <string>

using namespace tandem;

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
  actors::library_actor library;
  if (has_library) {
    library =
        system.spawn<caf::detached>(actors::library, shelf::shelf_roots{"models/tiny", "jobs"});
    net.publish(actors::library_name, library);
  }
  std::printf("listening %s\n", net.address().c_str());
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);)
    if (line == "leave") break;
  caf::anon_send_exit(worker, caf::exit_reason::user_shutdown);
  if (library) caf::anon_send_exit(library, caf::exit_reason::user_shutdown);
}
