#include "gateway/command/progress_line.hpp"

#include "gateway/command/print.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ostream>

namespace tandem::gateway::command {
namespace {

constexpr std::chrono::milliseconds redraw_every{100};
constexpr std::size_t bar_width = 24;

}  // namespace

progress_line::~progress_line() {
  if (drawn_) out_ << std::endl;
}

std::string progress_line::speed(std::uint64_t bytes_done,
                                 std::chrono::steady_clock::time_point now) const {
  const double seconds = std::chrono::duration<double>(now - begun_).count();
  if (seconds < 0.5 || bytes_done <= bytes_at_begin_) return {};
  const double rate = static_cast<double>(bytes_done - bytes_at_begin_) / seconds;
  return ", " + human_bytes(static_cast<std::uint64_t>(rate)) + "/s";
}

void progress_line::show(std::string_view what, std::uint64_t bytes_done, std::uint64_t bytes_total,
                         std::chrono::steady_clock::time_point now) {
  const std::uint64_t tenths =
      bytes_total > 0 ? std::min<std::uint64_t>(10 * bytes_done / bytes_total, 10) : 0;
  const bool news = !any_ || what != what_ || tenths != tenths_;
  if (!any_) {
    begun_ = now;
    bytes_at_begin_ = bytes_done;
  }
  if (!news && !(terminal_ && now - drawn_at_ >= redraw_every)) return;
  any_ = true;
  tenths_ = tenths;
  what_ = what;
  drawn_at_ = now;
  const std::string amount =
      bytes_total > 0 ? fmt::format("{} of {}", human_bytes(bytes_done), human_bytes(bytes_total))
                      : human_bytes(bytes_done);
  const std::string numbers = amount + speed(bytes_done, now);
  if (!terminal_) {
    out_ << fmt::format("{}: {}", what, numbers) << std::endl;
    return;
  }
  const std::size_t filled =
      bytes_total > 0 ? std::min<std::size_t>(bar_width * bytes_done / bytes_total, bar_width) : 0;
  // Carriage return, clear the line, draw again.
  out_ << fmt::format("\r\x1b[K[{}{}] {}  {}", std::string(filled, '='),
                      std::string(bar_width - filled, ' '), numbers, what)
       << std::flush;
  drawn_ = true;
}

}  // namespace tandem::gateway::command
