// Whether processes of a cluster reach each other, beside reaching the head. Each process has one
// of these actors, published as "reach"; the head asks it whether it gets through to others. And
// what to do where two do not: one of them is left out of what they do together.
#pragma once

#include "actors/messages.hpp"

#include <caf/all.hpp>

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tandem::actors {

inline constexpr const char* reach_name = "reach";  // as the link publishes it

// the head to a process: do you get through to the processes at these addresses? Answered when all
// have been tried: with those that do not answer.
struct try_to_reach {
  std::vector<std::string> addresses;
};
struct reach_tried {
  std::vector<std::string> silent;
};
using reach_actor = caf::typed_actor<caf::replies_to<try_to_reach>::with<reach_tried>>;

// Ends with its system. Publishes itself.
reach_actor::behavior_type reach(reach_actor::pointer self);

// The cluster address of the process this actor lives in; empty: this very process, or no link.
std::string process_address(const caf::strong_actor_ptr& of);

// A courier's error: what was asked of this rank did not get there, or no answer came back.
error rank_out_of_reach(int rank, const caf::error& why);
std::optional<int> rank_out_of_reach(const error& why);

// Two devices that do not reach each other, by name; `here`: it lives in the head's process.
struct torn_pair {
  struct end {
    std::string device;
    bool here = false;
  };
  end one;
  end other;
};
// Which one the others go on without: never the head's own where there is a choice, else the later
// by name, so that whoever reports first makes no difference.
std::string left_out_of(const torn_pair& pair);

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, try_to_reach& x) {
  return f(caf::meta::type_name("try_to_reach"), x.addresses);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, reach_tried& x) {
  return f(caf::meta::type_name("reach_tried"), x.silent);
}

}  // namespace tandem::actors
