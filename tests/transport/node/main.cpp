// A node in a process of its own, for tests: it sends every frame back to where it came from, and
// says on its output what happens to it.
//   transport_node LISTEN TRANSPORTS SILENT_AFTER_MS
#include "runtime/transport/fabric.hpp"

#include <cstdio>
#include <iostream>
#include <string>

using namespace tandem;

namespace {

void say(const std::string& line) {
  std::fputs((line + "\n").c_str(), stdout);
  std::fflush(stdout);
}

class echo : public transport::fabric_events {
 public:
  void peer_up(const transport::peer_ptr& who) override { say("up " + who->node().to_string()); }
  void frame_arrived(const transport::peer_ptr& from, std::span<const char> body,
                     std::vector<transport::buffer_ptr> attachments) override {
    const auto sent = fabric->send(from, {body.begin(), body.end()}, std::move(attachments),
                                   transport::fabric::urgency::must_go);
    if (!sent) say("unsent " + sent.error().detail);
  }
  void peer_gone(const transport::peer_ptr&, const error& why) override {
    say("gone " + why.detail);
  }
  transport::fabric* fabric = nullptr;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  transport::fabric_options options;
  options.listen = argv[1];
  options.transports = argv[2];
  options.silent_after = std::chrono::milliseconds(std::stol(argv[3]));
  echo events;
  auto opened = transport::fabric::open(options, events);
  if (!opened) {
    say("failed " + opened.error().detail);
    return 1;
  }
  events.fabric = opened->get();
  say("listening " + (*opened)->self().listen.to_string());
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "leave") break;
    if (line.rfind("dial ", 0) != 0) continue;
    (*opened)->dial(*transport::address::parse(line.substr(5)),
                    [](const result<transport::peer_ptr>& found) {
                      if (!found) say("failed " + found.error().detail);
                    });
  }
  (*opened)->close("was told to leave");
}
