// A worker that other nodes speak to, the messages it takes, and an actor system with a link.
#pragma once

#include "actors/link.hpp"
#include "actors/messages.hpp"
#include "actors/tensor_ref.hpp"

#include <caf/all.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tandem::test {

// anyone to a worker: say it back.
struct echo {
  std::uint64_t number = 0;
  std::string text;
  bool operator==(const echo&) const = default;
};
// anyone to a worker: one of many, in order; counted.
struct numbered {
  std::uint64_t number = 0;
  std::string filling;
};
struct how_many {};
struct counted {
  std::uint64_t arrived = 0;
  std::uint64_t out_of_order = 0;
};
// anyone to a worker: give the tensor back.
struct carry {
  std::string name;
  actors::tensor_ref tensor;
};
// anyone to a worker: let `target` answer it.
struct pass_on {
  caf::actor target;
  echo what;
};
// anyone to a worker: answer when told to.
struct later {
  echo what;
};
struct now {};
// anyone to a worker: say no.
struct refuse {};
// anyone to a worker: end with this.
struct end {
  std::string reason;
};
// A message that the node's program does not know.
struct unknown_there {
  int number = 0;
};

template <class Inspector>
auto inspect(Inspector& f, echo& x) {
  return f(caf::meta::type_name("echo"), x.number, x.text);
}
template <class Inspector>
auto inspect(Inspector& f, numbered& x) {
  return f(caf::meta::type_name("numbered"), x.number, x.filling);
}
template <class Inspector>
auto inspect(Inspector& f, how_many&) {
  return f(caf::meta::type_name("how_many"));
}
template <class Inspector>
auto inspect(Inspector& f, counted& x) {
  return f(caf::meta::type_name("counted"), x.arrived, x.out_of_order);
}
template <class Inspector>
auto inspect(Inspector& f, carry& x) {
  return f(caf::meta::type_name("carry"), x.name, x.tensor);
}
template <class Inspector>
auto inspect(Inspector& f, pass_on& x) {
  return f(caf::meta::type_name("pass_on"), x.target, x.what);
}
template <class Inspector>
auto inspect(Inspector& f, later& x) {
  return f(caf::meta::type_name("later"), x.what);
}
template <class Inspector>
auto inspect(Inspector& f, now&) {
  return f(caf::meta::type_name("now"));
}
template <class Inspector>
auto inspect(Inspector& f, refuse&) {
  return f(caf::meta::type_name("refuse"));
}
template <class Inspector>
auto inspect(Inspector& f, end& x) {
  return f(caf::meta::type_name("end"), x.reason);
}
template <class Inspector>
auto inspect(Inspector& f, unknown_there& x) {
  return f(caf::meta::type_name("unknown_there"), x.number);
}

using worker_actor =
    caf::typed_actor<caf::replies_to<echo>::with<echo>, caf::reacts_to<numbered>,
                     caf::replies_to<how_many>::with<counted>, caf::replies_to<carry>::with<carry>,
                     caf::replies_to<pass_on>::with<echo>, caf::replies_to<later>::with<echo>,
                     caf::reacts_to<now>, caf::replies_to<refuse>::with<echo>, caf::reacts_to<end>>;

struct worker_state {
  counted count;
  std::vector<std::pair<caf::typed_response_promise<echo>, echo>> promised;
};

inline worker_actor::behavior_type worker(worker_actor::stateful_pointer<worker_state> self) {
  return {
      [](const echo& what) { return what; },
      [self](const numbered& one) {
        auto& count = self->state.count;
        const char expected = static_cast<char>('a' + one.number % 26);
        const bool whole = std::ranges::all_of(one.filling, [&](char c) { return c == expected; });
        if (one.number != count.arrived || !whole) ++count.out_of_order;
        ++count.arrived;
      },
      [self](const how_many&) { return self->state.count; },
      [](const carry& what) { return what; },
      [self](const pass_on& order) -> caf::result<echo> {
        return self->delegate(caf::actor_cast<worker_actor>(order.target), order.what);
      },
      [self](const later& order) {
        auto promise = self->make_response_promise<echo>();
        self->state.promised.emplace_back(promise, order.what);
        return promise;
      },
      [self](const now&) {
        for (auto& [promise, what] : self->state.promised) promise.deliver(what);
        self->state.promised.clear();
      },
      [](const refuse&) -> caf::result<echo> {
        return actors::to_caf({errc::no_memory, "0 of 512 blocks free", "kv"});
      },
      [self](const end& order) {
        self->quit(actors::to_caf({errc::unavailable, order.reason, ""}));
      },
  };
}

struct link_config : caf::actor_system_config {
  link_config() {
    add_message_type<echo>("test::echo");
    add_message_type<numbered>("test::numbered");
    add_message_type<how_many>("test::how_many");
    add_message_type<counted>("test::counted");
    add_message_type<carry>("test::carry");
    add_message_type<pass_on>("test::pass_on");
    add_message_type<later>("test::later");
    add_message_type<now>("test::now");
    add_message_type<refuse>("test::refuse");
    add_message_type<end>("test::end");
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", 2);
  }
};

}  // namespace tandem::test
