// Deals one job's work to the devices that may do it now. Pure state: what devices do goes in, what
// to order comes out. A job lies on R devices; a phase is one kind of work with an item for each of
// some homes, and any working device may do any item.
//
// The rules: an item is held by one device at a time and done exactly once; a device that stops
// working keeps its item where it stands; a device that has nothing else to do takes such an item
// over, but is dealt it only when the other has dropped it. What was begun anew twice is left
// standing for `patience_ms` first: devices that come and go fast must not lose all they begin. A
// device whose parameters are behind gathers before it reads them.
#pragma once

#include "runtime/train/order.hpp"

#include <cstdint>
#include <optional>
#include <vector>

namespace tandem::train {

class work_book {
 public:
  struct assignment {
    int rank = 0;
    order_kind kind = order_kind::accumulate;
    int home = 0;
    bool operator==(const assignment&) const = default;
  };
  struct actions {
    std::vector<assignment> deal;
    std::vector<int> drop;  // ranks whose order is to be dropped; `dropped` answers
    // When to ask again, though nothing happens until then; 0: not.
    std::int64_t look_again_ms = 0;
  };
  static constexpr std::int64_t patience_ms = 250;

  explicit work_book(int ranks);

  // The next phase: an item for each of `homes`. The one before must be done.
  void begin(order_kind kind, const std::vector<int>& homes);
  order_kind phase() const { return kind_; }
  // Every item is done, and nobody still copies what the next phase may change.
  bool done() const;
  // An update is through: everybody's parameters are behind.
  void parameters_changed() { ++version_; }

  // Times are of one monotonic clock, in milliseconds.
  void grant(int rank);                        // it may work
  void revoke(int rank, std::int64_t now_ms);  // not any more; what it holds stays with it
  bool anyone_works() const;
  bool works(int rank) const { return at(rank).works; }

  // What `rank` held (false: it held nothing that counts any more).
  bool finished(int rank);
  // Its order did not run: the item is open again.
  void refused(int rank);
  // Nothing of its order runs any more; the item, unless it was finished before, is open again.
  void dropped(int rank);
  // Wants this rank's item back, for whatever reason: true once, `dropped` answers.
  bool drop(int rank);

  actions next(std::int64_t now_ms);

 private:
  enum class progress : std::uint8_t { absent, open, held, done };
  struct worker {
    bool works = false;
    std::int64_t stands_since_ms = 0;  // where it does not
    bool dropping = false;
    std::optional<assignment> holds;
    std::uint64_t holds_version = 0;  // of the parameters when its order was dealt
    std::uint64_t version = 0;        // of its parameters
  };

  const worker& at(int rank) const { return workers_[static_cast<std::size_t>(rank)]; }
  worker& at(int rank) { return workers_[static_cast<std::size_t>(rank)]; }
  void deal(int rank, std::size_t home, actions& now);
  bool must_gather(const worker& who) const;
  std::int64_t patience_with(const assignment& what) const;
  void release(worker& who);

  std::vector<worker> workers_;
  std::vector<progress> items_;  // by home
  std::vector<int> begun_;       // how often, by home
  order_kind kind_ = order_kind::accumulate;
  std::uint64_t version_ = 0;
};

}  // namespace tandem::train
