#include "actors/reach.hpp"

#include "actors/fault.hpp"
#include "actors/link.hpp"
#include "actors/remote_node.hpp"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <memory>

namespace tandem::actors {
namespace {

constexpr auto answer_within = std::chrono::seconds(2);
constexpr std::size_t tried_max = 256;  // in one order
constexpr std::string_view rank_prefix = "rank ";

struct round {
  reach_tried tried;
  std::size_t missing = 0;
  caf::typed_response_promise<reach_tried> answer;
};

void heard(round& now) {
  if (--now.missing == 0) now.answer.deliver(std::move(now.tried));
}

}  // namespace

reach_actor::behavior_type reach(reach_actor::pointer self) {
  auto& net = link_of(self->system());
  net.publish(reach_name, reach_actor(self));
  return {
      [self, &net](const try_to_reach& order) -> caf::result<reach_tried> {
        if (order.addresses.empty() || order.addresses.size() > tried_max)
          return to_caf({errc::bad_request,
                         fmt::format("{} addresses are to be tried: 1 to {} are allowed",
                                     order.addresses.size(), tried_max),
                         "addresses"});
        auto now = std::make_shared<round>();
        now->missing = order.addresses.size();
        now->answer = self->make_response_promise<reach_tried>();
        auto answer = now->answer;
        for (const auto& address : order.addresses)
          net.resolve<reach_actor>(self, address, reach_name, answer_within)
              .then([now](const caf::strong_actor_ptr&) { heard(*now); },
                    [now, address](const caf::error& why) {
                      // Whoever says that there is nothing of that name was reached.
                      if (!is_refusal(why) || from_caf(why).code != errc::not_found)
                        now->tried.silent.push_back(address);
                      heard(*now);
                    });
        return answer;
      },
  };
}

std::string process_address(const caf::strong_actor_ptr& of) {
  if (!of || of->node() == of->home_system->node()) return {};
  const auto who = to_identity(of->node());
  return who ? who->listen.to_string() : std::string();
}

error rank_out_of_reach(int rank, const caf::error& why) {
  return {errc::unavailable,
          why == caf::sec::request_timeout
              ? "it did not answer in time"
              : "the connection to it is lost: " + from_caf(why).detail,
          fmt::format("{}{}", rank_prefix, rank)};
}

std::optional<int> rank_out_of_reach(const error& why) {
  if (why.code != errc::unavailable || !why.param.starts_with(rank_prefix)) return std::nullopt;
  int rank = 0;
  const auto* const end = why.param.data() + why.param.size();
  const auto [read, failed] = std::from_chars(why.param.data() + rank_prefix.size(), end, rank);
  if (failed != std::errc{} || read != end || rank < 0) return std::nullopt;
  return rank;
}

std::string left_out_of(const torn_pair& pair) {
  if (pair.one.here != pair.other.here) return pair.one.here ? pair.other.device : pair.one.device;
  return std::max(pair.one.device, pair.other.device);
}

}  // namespace tandem::actors
