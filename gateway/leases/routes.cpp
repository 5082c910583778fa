#include "gateway/leases/routes.hpp"

#include "gateway/http_error.hpp"
#include "gateway/leases/lease_feed.hpp"
#include "gateway/leases/lease_format.hpp"
#include "gateway/leases/lease_orders.hpp"
#include "gateway/openai/endpoint.hpp"
#include "gateway/openai/list_query.hpp"
#include "gateway/refusal.hpp"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <utility>

namespace tandem::gateway {

namespace {

using board_pointer = std::shared_ptr<actors::lease_board>;
using control_pointer = std::shared_ptr<lease_control>;
using openai::answering;

constexpr int events_listed = 100;
constexpr int listed_max = 1000;

constexpr const char* role_shape = R"({"enum":["idle","serve","train","shared"]})";

std::string lease_shape(std::string_view more) {
  return fmt::format(
      R"({{"type":"object","required":["device","role","holder","job","epoch"],"properties":{{"device":{{"type":"string"}},"role":{},"holder":{{"type":["string","null"]}},"job":{{"type":["string","null"]}},"epoch":{{"type":"integer"}}{}}}}})",
      role_shape, more);
}

std::string leases_shape() {
  const std::string device = lease_shape(
      R"(,"pin":{"type":["string","null"]},"moving_to":{"type":["string","null"]},"resident":{"type":"boolean"},"since_ms":{"type":"integer"},"why":{"type":"string"},"running":{"type":"integer"},"queued":{"type":"integer"},"busy":{"type":"number"},"memory_capacity":{"type":"integer"},"memory_used":{"type":"integer"},"moves":{"type":"integer"})");
  return fmt::format(
      R"({{"type":"object","required":["time_ms","epoch","policy","devices","service","jobs","moves","refusals"],"properties":{{"time_ms":{{"type":"integer"}},"epoch":{{"type":"integer"}},"policy":{},"devices":{{"type":"array","items":{}}},"service":{{"type":"object"}},"jobs":{{"type":"array","items":{{"type":"object"}}}},"moves":{{"type":"integer"}},"refusals":{{"type":"integer"}}}}}})",
      policy_schema(), device);
}

constexpr const char* history_shape =
    R"({"type":"object","required":["object","data","has_more"],"properties":{"object":{"const":"list"},"data":{"type":"array","items":{"type":"object","required":["sequence","time_ms","kind","device","job","from","to","epoch","cause","why","numbers","held_after_us","first_work_after_us"]}},"has_more":{"type":"boolean"}}})";

std::int64_t unix_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

void send_json(const std::shared_ptr<responder>& to, const text::value& body) {
  http_response response;
  response.headers.emplace_back("cache-control", "no-store");
  response.body = body.to_json();
  to->send(std::move(response));
}

result<lease::report> newest_of(const actors::lease_board& board) {
  if (auto report = board.newest()) return *std::move(report);
  return error{errc::unavailable, "no device has been lent yet: ask again in a moment", ""};
}

// The newest sequence number of which anybody was told.
std::uint64_t newest_sequence(const actors::lease_board& board) {
  const auto last = board.history({}, 1);
  return last.empty() ? 0 : last.front().sequence;
}

result<std::uint64_t> sequence_from(std::string_view digits) {
  std::uint64_t sequence = 0;
  const char* const end = digits.data() + digits.size();
  const auto read = std::from_chars(digits.data(), end, sequence);
  if (read.ec != std::errc{} || read.ptr != end)
    return openai::bad_value("after", fmt::format("expected an event's sequence number, but got "
                                                  "'{}'",
                                                  quotable(digits)));
  return sequence;
}

http_handler show_leases(board_pointer board) {
  return answering(
      [board = std::move(board)](const http_request&, const std::shared_ptr<responder>& to) {
        const auto report = newest_of(*board);
        if (!report) return result<void>(report.error());
        send_json(to, lease_report_json(*report, unix_ms()));
        return result<void>();
      });
}

http_handler show_history(board_pointer board) {
  return answering([board = std::move(board)](const http_request& request,
                                              const std::shared_ptr<responder>& to) {
    const auto query = openai::read_list_query(request, events_listed, listed_max);
    if (!query) return result<void>(query.error());
    std::uint64_t after = 0;
    if (!query->after.empty()) {
      const auto read = sequence_from(query->after);
      if (!read) return result<void>(read.error());
      after = *read;
    }
    const auto limit = static_cast<std::size_t>(query->limit);
    auto events = board->history(request.query_parameter("device"), limit + 1);
    std::erase_if(events, [&](const lease::event& e) { return e.sequence <= after; });
    const bool more = events.size() > limit;
    if (more) events.pop_back();
    text::value::array data;
    for (const auto& event : events) data.push_back(lease_event_json(event));
    send_json(
        to, text::value::object{{"object", "list"}, {"data", std::move(data)}, {"has_more", more}});
    return result<void>();
  });
}

http_handler assign_device(control_pointer control) {
  return answering([control = std::move(control)](const http_request& request,
                                                  const std::shared_ptr<responder>& to) {
    const auto body = openai::request_body::parse(request.body);
    if (!body) return result<void>(body.error());
    const auto order = read_assign(*body);
    if (!order) return result<void>(order.error());
    std::string ordered = order->as ? std::string(lease::name_of(*order->as)) : "auto";
    control->assign(order->device, order->as,
                    [to, ordered = std::move(ordered)](result<lease::lease> now) {
                      if (!now) return to->send(error_response(now.error()));
                      text::value shown = lease_json(*now);
                      shown.set("ordered", ordered);
                      send_json(to, shown);
                    });
    return result<void>();
  });
}

http_handler show_policy(board_pointer board) {
  return answering(
      [board = std::move(board)](const http_request&, const std::shared_ptr<responder>& to) {
        const auto report = newest_of(*board);
        if (!report) return result<void>(report.error());
        send_json(to, policy_json(report->policy));
        return result<void>();
      });
}

http_handler change_policy(board_pointer board, control_pointer control) {
  return answering([board = std::move(board), control = std::move(control)](
                       const http_request& request, const std::shared_ptr<responder>& to) {
    const auto body = openai::request_body::parse(request.body);
    if (!body) return result<void>(body.error());
    const auto report = newest_of(*board);
    if (!report) return result<void>(report.error());
    const auto wanted = read_policy(*body, report->policy);
    if (!wanted) return result<void>(wanted.error());
    const auto devices = static_cast<int>(report->devices.size());
    if (wanted->min_serve_devices > devices &&
        wanted->min_serve_devices != report->policy.min_serve_devices)
      return result<void>(
          error{errc::conflict,
                fmt::format("min_serve_devices {} is more than the {} devices there "
                            "are: give 1 to {}",
                            wanted->min_serve_devices, devices, devices),
                "min_serve_devices"});
    control->set_policy(*wanted, [to](result<lease::policy_settings> now) {
      if (!now) return to->send(error_response(now.error()));
      send_json(to, policy_json(*now));
    });
    return result<void>();
  });
}

// From `?after=`, or where a browser's EventSource says it stopped; else what happens from now on.
// A number that was never given out comes from before a restart, which counts anew.
http_handler stream_events(board_pointer board, std::shared_ptr<lease_feed> feed) {
  return answering([board = std::move(board), feed = std::move(feed)](
                       const http_request& request, const std::shared_ptr<responder>& to) {
    std::string asked = request.query_parameter("after");
    if (const auto last = request.header("last-event-id"); !last.empty()) asked = last;
    const std::uint64_t newest = newest_sequence(*board);
    std::uint64_t after = newest;
    if (!asked.empty()) {
      const auto read = sequence_from(asked);
      if (!read) return result<void>(read.error());
      after = *read > newest ? 0 : *read;
    }
    begin_event_stream(to);
    feed->follow(after, to);
    return result<void>();
  });
}

}  // namespace

std::function<void()> add_lease_routes(router& to, std::shared_ptr<actors::lease_board> board,
                                       std::shared_ptr<lease_control> control) {
  const auto feed = std::make_shared<lease_feed>(board);
  to.add({"GET", "/admin/leases", access::admin,
          "Who holds each device, in which role and why; the policy, latencies and jobs.", "",
          leases_shape(), show_leases(board)});
  to.add({"GET", "/admin/leases/history", access::admin,
          "What was decided, newest first, with the numbers that made it; ?device=, ?limit= and "
          "?after= (only newer than this sequence).",
          "", history_shape, show_history(board)});
  to.add({"POST", "/admin/assign", access::admin,
          "Orders a device into a role by hand, or back to the policy; answered with the lease as "
          "it is.",
          assign_schema(), lease_shape(R"(,"ordered":{"enum":["serve","train","shared","auto"]})"),
          assign_device(control)});
  to.add({"GET", "/admin/policy", access::admin, "How devices are shared.", "", policy_schema(),
          show_policy(board)});
  to.add({"POST", "/admin/policy", access::admin,
          "Changes what the body names of how devices are shared.", policy_schema(),
          policy_schema(), change_policy(board, control)});
  to.add({"GET", "/admin/events", access::admin,
          "Server-sent events of leases, live; ?after= or Last-Event-ID goes on behind that event.",
          "", "", stream_events(std::move(board), feed)});
  return [feed] { feed->close(); };
}

}  // namespace tandem::gateway
