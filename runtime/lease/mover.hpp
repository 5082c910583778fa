// What to do next for one device: it is held as one thing and wanted as another. The coordinator
// calls this after everything that happens; however often the wish changed meanwhile, only the
// newest counts, and one thing is under way at a time.
#pragma once

#include "runtime/lease/lease_book.hpp"

namespace tandem::lease {

enum class stage : std::uint8_t {
  still,
  releasing,    // who serves was asked to give the device back
  taking_back,  // and that was taken back; its answer is still to come
  taking        // the device was told its new lease
};

struct move_facts {
  role held = role::idle;
  role wanted = role::idle;
  stage at = stage::still;
  // Who serves works on this device now: it must give it back before it may lose it.
  bool in_service = false;
  // It did not answer its last lease, so what it holds is not known: it is told again.
  bool unsure = false;
};

enum class move_action : std::uint8_t { none, release, take_back, lend };

constexpr move_action next_action(const move_facts& now) {
  switch (now.at) {
    case stage::still:
      if (now.wanted == now.held && !now.unsure) return move_action::none;
      return now.in_service && !serves(now.wanted) ? move_action::release : move_action::lend;
    case stage::releasing:
      return serves(now.wanted) ? move_action::take_back : move_action::none;
    case stage::taking_back:
    case stage::taking:
      return move_action::none;
  }
  return move_action::none;
}

}  // namespace tandem::lease
