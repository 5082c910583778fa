#include "gateway/command/plot_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

namespace tandem::gateway::command {
namespace {

constexpr std::size_t dots_across = 2;  // of one character
constexpr std::size_t dots_down = 4;

// A grid of characters, each two by four dots.
class canvas {
 public:
  canvas(std::size_t columns, std::size_t rows)
      : columns_(columns), rows_(rows), dots_(columns * rows), marked_(columns * rows) {}

  std::size_t last_x() const { return columns_ * dots_across - 1; }
  std::size_t last_y() const { return rows_ * dots_down - 1; }

  void dot(std::size_t x, std::size_t y) {
    // Unicode's order: 1 2 3 7 down the left, 4 5 6 8 down the right.
    constexpr std::uint8_t bits[dots_down][dots_across] = {
        {0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    dots_[cell(x, y)] |= bits[y % dots_down][x % dots_across];
  }
  void mark(std::size_t x, std::size_t y) { marked_[cell(x, y)] = true; }

  // Bresenham's, both ends included.
  void line(std::size_t x0, std::size_t y0, std::size_t x1, std::size_t y1) {
    auto x = static_cast<std::int64_t>(x0);
    auto y = static_cast<std::int64_t>(y0);
    const auto to_x = static_cast<std::int64_t>(x1);
    const auto to_y = static_cast<std::int64_t>(y1);
    const std::int64_t across = std::abs(to_x - x);
    const std::int64_t down = -std::abs(to_y - y);
    const std::int64_t step_x = x < to_x ? 1 : -1;
    const std::int64_t step_y = y < to_y ? 1 : -1;
    for (std::int64_t fault = across + down;;) {
      dot(static_cast<std::size_t>(x), static_cast<std::size_t>(y));
      if (x == to_x && y == to_y) return;
      const std::int64_t twice = 2 * fault;
      if (twice >= down) {
        fault += down;
        x += step_x;
      }
      if (twice <= across) {
        fault += across;
        y += step_y;
      }
    }
  }

  // One row's characters, without what would only be spaces at its end.
  std::string row(std::size_t r, text_style style) const {
    std::string out;
    std::size_t blank = 0;
    for (std::size_t c = 0; c < columns_; ++c) {
      const std::size_t i = r * columns_ + c;
      if (!marked_[i] && dots_[i] == 0) {
        ++blank;
        continue;
      }
      out.append(blank, ' ');
      blank = 0;
      out += marked_[i] ? painted("o", "33", style)
                        : painted(style.ascii ? "*" : braille(dots_[i]), "36", style);
    }
    return out;
  }

  static std::string painted(std::string_view text, std::string_view colour, text_style style) {
    return style.colour ? fmt::format("\x1b[{}m{}\x1b[0m", colour, text) : std::string(text);
  }

  static std::string braille(std::uint8_t dots) {  // U+2800 and the dots, in UTF-8
    return {'\xe2', static_cast<char>(0xa0 | dots >> 6), static_cast<char>(0x80 | (dots & 0x3f))};
  }

 private:
  std::size_t cell(std::size_t x, std::size_t y) const {
    return y / dots_down * columns_ + x / dots_across;
  }

  std::size_t columns_;
  std::size_t rows_;
  std::vector<std::uint8_t> dots_;
  std::vector<bool> marked_;
};

std::size_t scaled(double share, std::size_t last) {
  return static_cast<std::size_t>(std::lround(share * static_cast<double>(last)));
}

void draw(canvas& on, const loss_curve& curve, const axis& steps, const axis& losses) {
  const auto x = [&](const loss_point& p) { return scaled(steps.share(p.step), on.last_x()); };
  const auto y = [&](const loss_point& p) { return scaled(1 - losses.share(p.loss), on.last_y()); };
  for (std::size_t i = 0; i < curve.train.size(); ++i) {
    const loss_point& from = curve.train[i > 0 ? i - 1 : 0];
    const loss_point& to = curve.train[i];
    on.line(x(from), y(from), x(to), y(to));
  }
  for (const loss_point& point : curve.valid) on.mark(x(point), y(point));
}

// The numbers under the horizontal axis, each centred under its tick, none over another.
std::string step_labels(const axis& steps, std::size_t margin, std::size_t columns) {
  std::string line(margin, ' ');
  for (const double tick : steps.ticks) {
    const std::string label = steps.label(tick);
    const std::size_t centre = margin + scaled(steps.share(tick), columns - 1);
    std::size_t at = centre > label.size() / 2 ? centre - label.size() / 2 : 0;
    at = std::min(at, margin + columns - label.size());
    if (line.size() > margin && at < line.size() + 2) continue;
    if (at < line.size()) at = line.size();
    line.append(at - line.size(), ' ');
    line += label;
  }
  return line;
}

std::string legend(const loss_curve& curve, text_style style) {
  std::string out;
  if (!curve.train.empty()) {
    out += canvas::painted(style.ascii ? "*" : canvas::braille(0x12), "36", style) +
           fmt::format(" training {:.4f}", curve.train.back().loss);
  }
  if (!curve.valid.empty()) {
    out += (out.empty() ? "" : "   ") + canvas::painted("o", "33", style) +
           fmt::format(" validation {:.4f}", curve.valid.back().loss);
  }
  return out;
}

}  // namespace

std::string plot_as_text(const loss_curve& curve, std::string_view title, terminal_size size,
                         text_style style) {
  constexpr std::size_t other_rows = 4;  // title, axis, numbers, legend
  const std::size_t rows = std::max<std::size_t>(size.rows, other_rows + 2) - other_rows;
  const axis losses = loss_axis(curve, static_cast<int>(std::clamp<std::size_t>(rows / 3, 2, 10)));
  std::size_t label_width = 0;
  for (const double tick : losses.ticks) {
    label_width = std::max(label_width, losses.label(tick).size());
  }
  const std::size_t margin = label_width + 2;  // a space, the axis
  const std::size_t columns = size.columns > margin + 8 ? size.columns - margin : 8;
  const axis steps = step_axis(curve, static_cast<int>(std::max<std::size_t>(columns / 10, 1)));

  canvas field(columns, rows);
  draw(field, curve, steps, losses);
  std::vector<std::string> labels(rows);
  for (const double tick : losses.ticks) {
    labels[scaled(1 - losses.share(tick), field.last_y()) / dots_down] = losses.label(tick);
  }
  std::string out(title.substr(0, size.columns));
  out += '\n';
  for (std::size_t r = 0; r < rows; ++r) {
    const char* edge = labels[r].empty() ? (style.ascii ? "|" : "│") : (style.ascii ? "+" : "┤");
    out += fmt::format("{:>{}} {}{}\n", labels[r], label_width, edge, field.row(r, style));
  }
  out += std::string(label_width + 1, ' ') + (style.ascii ? "+" : "└");
  std::vector<bool> ticked(columns);
  for (const double tick : steps.ticks) ticked[scaled(steps.share(tick), columns - 1)] = true;
  for (std::size_t c = 0; c < columns; ++c) {
    out += ticked[c] ? (style.ascii ? "+" : "┬") : (style.ascii ? "-" : "─");
  }
  return out + '\n' + step_labels(steps, margin, columns) + '\n' + legend(curve, style) + '\n';
}

}  // namespace tandem::gateway::command
