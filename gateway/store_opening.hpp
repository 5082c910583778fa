// The store that `tandem up` works on. In PostgreSQL heads may stand by: they wait here, before
// they open any port, so that whoever asks such an address is refused at once and goes to the one
// that leads.
#pragma once

#include "actors/roster.hpp"
#include "gateway/process_signals.hpp"
#include "runtime/settings.hpp"
#include "runtime/store/leader_seat.hpp"
#include "runtime/store/store.hpp"

#include <memory>

namespace tandem::gateway {

struct opened_store {
  std::shared_ptr<store::leader_seat> seat;  // null: no other head can be there
  std::shared_ptr<store::store> kept;
};

// Returns when this head leads; cancelled when a signal ended the wait. A head that has lost the
// lead ends its process at once (exit status 1): what it might write next is another's.
result<opened_store> open_store(const settings& configuration, process_signals& signals);

// Those who stand by are told where this head answers, now that it knows its port.
void tell_address(const opened_store& store, const settings& configuration, int port);

// The roster, and so the nodes, are told which heads stand by and whether this one is sure of its
// lead, until this goes away.
class lead_watch {
 public:
  lead_watch(const opened_store& store, const actors::roster_actor& roster);
  lead_watch(const lead_watch&) = delete;
  lead_watch& operator=(const lead_watch&) = delete;
  ~lead_watch();

 private:
  std::shared_ptr<store::leader_seat> seat_;
};

}  // namespace tandem::gateway
