// Long work on the screen: a bar that is redrawn on a terminal, a plain line every tenth elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>

namespace tandem::gateway::command {

class progress_line {
 public:
  progress_line(std::ostream& out, bool terminal) : out_(out), terminal_(terminal) {}
  ~progress_line();  // leaves the cursor on a line of its own
  progress_line(const progress_line&) = delete;
  progress_line& operator=(const progress_line&) = delete;

  // `total` 0: not known. `now` is any steady time.
  void show(std::string_view what, std::uint64_t bytes_done, std::uint64_t bytes_total,
            std::chrono::steady_clock::time_point now = std::chrono::steady_clock::now());

 private:
  std::string speed(std::uint64_t bytes_done, std::chrono::steady_clock::time_point now) const;

  std::ostream& out_;
  bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point begun_;
  std::chrono::steady_clock::time_point drawn_at_;
  std::uint64_t bytes_at_begin_ = 0;  // of an earlier run: no speed of ours
  bool any_ = false;
  std::uint64_t tenths_ = 0;
  std::string what_;
};

}  // namespace tandem::gateway::command
