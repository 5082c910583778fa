#include "gateway/command/live_screen.hpp"

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <ostream>

namespace tandem::gateway::command {
namespace {

std::atomic<bool> asked_to_end{false};  // lock-free: a signal handler may touch it
static_assert(std::atomic<bool>::is_always_lock_free);

extern "C" void remember_end(int) { asked_to_end.store(true); }

}  // namespace

live_screen::live_screen(console& io) : io_(io) {
  asked_to_end.store(false);
  struct sigaction action {};
  action.sa_handler = remember_end;
  sigaction(SIGTERM, &action, &term_before_);
  sigaction(SIGHUP, &action, &hangup_before_);
  if (tcgetattr(STDIN_FILENO, &before_) == 0) {
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    // A stopped or aborted program would leave its screen standing.
    raw.c_cc[VSUSP] = _POSIX_VDISABLE;
    raw.c_cc[VQUIT] = _POSIX_VDISABLE;
    changed_ = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
  }
  io_.out << "\x1b[?1049h\x1b[?25l\x1b[2J" << std::flush;
}

live_screen::~live_screen() {
  io_.out << "\x1b[?25h\x1b[?1049l" << std::flush;
  if (changed_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  sigaction(SIGTERM, &term_before_, nullptr);
  sigaction(SIGHUP, &hangup_before_, nullptr);
}

void live_screen::show(const std::vector<std::string>& lines) {
  // Mode 2026: terminals that know it show the whole at once.
  std::string frame = "\x1b[?2026h\x1b[H";
  for (std::size_t i = 0; i < lines.size(); ++i)
    frame += (i > 0 ? "\r\n" : "") + lines[i] + "\x1b[K";
  frame += "\x1b[J\x1b[?2026l";
  io_.out << frame << std::flush;
}

char live_screen::key(std::chrono::milliseconds patience) {
  pollfd input{STDIN_FILENO, POLLIN, 0};
  if (::poll(&input, 1, static_cast<int>(patience.count())) <= 0) return 0;
  char c = 0;
  if (::read(STDIN_FILENO, &c, 1) == 1) return c;
  gone_ = true;  // readable and empty: hung up
  return 0;
}

bool live_screen::ended() const { return gone_ || asked_to_end.load(); }

}  // namespace tandem::gateway::command
