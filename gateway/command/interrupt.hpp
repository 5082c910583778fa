// Ctrl-C as a flag: while one of these lives, SIGINT is remembered and does not end the program.
#pragma once

#include <csignal>

namespace tandem::gateway::command {

class interrupt_watch {
 public:
  interrupt_watch();
  ~interrupt_watch();
  interrupt_watch(const interrupt_watch&) = delete;
  interrupt_watch& operator=(const interrupt_watch&) = delete;

  bool seen() const;
  void forget();

 private:
  struct sigaction before_ {};
};

}  // namespace tandem::gateway::command
