#include "gateway/command/interrupt.hpp"

#include <atomic>

namespace tandem::gateway::command {
namespace {

std::atomic<bool> interrupted{false};  // lock-free: a signal handler may touch it
static_assert(std::atomic<bool>::is_always_lock_free);

extern "C" void remember_interrupt(int) { interrupted.store(true); }

}  // namespace

interrupt_watch::interrupt_watch() {
  interrupted.store(false);
  struct sigaction action {};
  action.sa_handler = remember_interrupt;  // without SA_RESTART: a blocked read returns
  sigaction(SIGINT, &action, &before_);
}

interrupt_watch::~interrupt_watch() { sigaction(SIGINT, &before_, nullptr); }

bool interrupt_watch::seen() const { return interrupted.load(); }

void interrupt_watch::forget() { interrupted.store(false); }

}  // namespace tandem::gateway::command
