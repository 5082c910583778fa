#include "gateway/leases/lease_feed.hpp"

#include "gateway/http_error.hpp"
#include "gateway/leases/lease_format.hpp"

#include <fmt/format.h>

#include <string>
#include <utility>

namespace tandem::gateway {

namespace {

// Read from the board in one go; sent before the client has to take some.
constexpr std::size_t events_read = 64;
constexpr const char* topic = "leases";

struct lease_reader {
  std::shared_ptr<actors::lease_board> board;
  std::uint64_t after = 0;
  bool began = false;  // what is sent next must follow without a gap

  event_feed::news operator()() {
    const auto events = board->since(after, events_read);
    if (events.empty()) return {};
    if (began && events.front().sequence > after + 1) {
      const error slow{errc::too_large,
                       fmt::format("read too slowly: events {} to {} are no longer kept", after + 1,
                                   events.front().sequence - 1),
                       ""};
      return {"event: error\ndata: " + error_body(slow) + "\n\n", true};
    }
    began = true;
    std::string out;
    for (const auto& event : events)
      out += fmt::format("event: {}\nid: {}\ndata: {}\n\n", event.kind, event.sequence,
                         lease_event_json(event).to_json());
    after = events.back().sequence;
    return {std::move(out), false};
  }
};

}  // namespace

lease_feed::lease_feed(std::shared_ptr<actors::lease_board> from) : board_(std::move(from)) {
  listening_ = board_->listen([feed = feed_] { feed->wake(topic); });
}

lease_feed::~lease_feed() { board_->unlisten(listening_); }

void lease_feed::follow(std::uint64_t after, std::shared_ptr<responder> to) {
  feed_->follow(topic, std::move(to), lease_reader{board_, after});
}

}  // namespace tandem::gateway
