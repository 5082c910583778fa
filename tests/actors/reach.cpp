// Devices of a group that do not reach each other: who is named, and who is left out.
#include "actors/reach.hpp"

#include "actors/fault.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using actors::left_out_of;
using actors::rank_out_of_reach;

TEST_CASE("a courier's error says which rank it did not reach, and only such an error does") {
  const auto lost = rank_out_of_reach(3, caf::make_error(caf::sec::request_receiver_down));
  CHECK(lost.code == errc::unavailable);
  CHECK(rank_out_of_reach(lost) == 3);
  const auto late = rank_out_of_reach(0, caf::make_error(caf::sec::request_timeout));
  CHECK(rank_out_of_reach(late) == 0);
  CHECK(late.detail == "it did not answer in time");
  for (const auto* param : {"", "rank ", "rank x", "rank 3x", "rank -1", "rank 99999999999999"})
    CHECK_FALSE(rank_out_of_reach(error{errc::unavailable, "", param}));
  CHECK_FALSE(rank_out_of_reach(error{errc::conflict, "", "rank 3"}));
}

TEST_CASE(
    "of two devices that do not reach each other the head's own stays, else the earlier one") {
  CHECK(left_out_of({{"cpu:0-0", true}, {"node2/cpu:0-0", false}}) == "node2/cpu:0-0");
  CHECK(left_out_of({{"node2/cpu:0-0", false}, {"cpu:0-0", true}}) == "node2/cpu:0-0");
  CHECK(left_out_of({{"node3/cpu:0-0", false}, {"node2/cpu:0-0", false}}) == "node3/cpu:0-0");
  CHECK(left_out_of({{"node2/cpu:0-0", false}, {"node3/cpu:0-0", false}}) == "node3/cpu:0-0");
}
