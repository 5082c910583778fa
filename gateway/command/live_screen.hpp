// The terminal as a screen of its own: alternate buffer, no echo, keys one by one. However the
// command ends, short of being killed outright, the terminal is left as it was.
#pragma once

#include "gateway/command/console.hpp"

#include <termios.h>
#include <chrono>
#include <csignal>
#include <string>
#include <vector>

namespace tandem::gateway::command {

class live_screen {
 public:
  explicit live_screen(console& io);
  ~live_screen();
  live_screen(const live_screen&) = delete;
  live_screen& operator=(const live_screen&) = delete;

  // Redraws in one write and in place, so that nothing flickers.
  void show(const std::vector<std::string>& lines);
  // The next key; 0: none within this time, or a signal came.
  char key(std::chrono::milliseconds patience);
  // SIGTERM or SIGHUP came, or the terminal is gone.
  bool ended() const;

 private:
  console& io_;
  bool gone_ = false;
  bool changed_ = false;  // the terminal's settings
  termios before_{};
  struct sigaction term_before_ {};
  struct sigaction hangup_before_ {};
};

}  // namespace tandem::gateway::command
