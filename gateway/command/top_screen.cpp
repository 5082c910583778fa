#include "gateway/command/top_screen.hpp"

#include "gateway/command/print.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <string_view>

namespace tandem::gateway::command {
namespace {

using lease::role;

// SGR parameters; empty: as it comes.
constexpr std::string_view plain;
constexpr std::string_view bold = "1";
constexpr std::string_view faint = "2";
constexpr std::string_view alarm = "1;31";

struct look {
  std::string_view glyph;
  std::string_view colour;
};
look look_of(std::optional<role> r) {
  if (!r) return {" ", plain};
  switch (*r) {
    case role::serve:
      return {"█", "34"};
    case role::shared:
      return {"▓", "35"};
    case role::train:
      return {"▒", "33"};
    case role::idle:
      break;
  }
  return {"·", faint};
}

// One line of the screen: what goes beyond its width is cut.
class row {
 public:
  row(std::size_t width, bool colours) : width_(width), colours_(colours) {}

  row& put(std::string_view text, std::string_view style = plain) {
    std::string cut;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto c = static_cast<unsigned char>(text[i]);
      if ((c & 0xc0U) != 0x80U && columns_++ == width_) {
        --columns_;
        break;
      }
      cut += c < 0x20 || c == 0x7f ? '?' : text[i];
    }
    if (colours_ && !style.empty() && !cut.empty())
      text_ += fmt::format("\x1b[{}m{}\x1b[0m", style, cut);
    else
      text_ += cut;
    return *this;
  }
  row& fill_to(std::size_t column) {
    return column > columns_ ? put(std::string(column - columns_, ' ')) : *this;
  }
  // The text in a column of its own, and two blanks behind it.
  row& left(std::string_view text, std::size_t width, std::string_view style = plain) {
    const std::size_t begin = columns_;
    return put(shortened(text, width), style).fill_to(begin + width + 2);
  }
  row& right(std::string_view text, std::size_t width, std::string_view style = plain) {
    const std::string shown = shortened(text, width);
    fill_to(columns_ + width - columns_of(shown));
    return put(shown, style).put("  ");
  }
  // At the line's right end, when there is room for it.
  row& at_end(std::string_view text, std::string_view style = plain) {
    const std::size_t wanted = columns_of(text);
    if (columns_ + 2 + wanted > width_) return *this;
    return fill_to(width_ - wanted).put(text, style);
  }
  std::size_t columns() const { return columns_; }
  std::string text() const {
    // Blanks at the end are nobody's, escapes end in 'm'.
    return text_.substr(0, text_.find_last_not_of(' ') + 1);
  }

 private:
  std::size_t width_;
  bool colours_;
  std::size_t columns_ = 0;
  std::string text_;
};

std::string clock_of(std::int64_t unix_ms) {
  const auto seconds = static_cast<std::time_t>(unix_ms / 1000);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::array<char, 16> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%H:%M:%S UTC", &parts)};
}

std::string percent(double share) { return fmt::format("{:.0f}%", 100 * share); }

std::string rate_of(std::optional<double> rate) {
  return rate ? fmt::format("{:.0f}", *rate) : "–";
}

std::string role_words(const top_device& device, bool narrow) {
  std::string text(lease::name_of(device.role));
  if (narrow) return text;
  if (device.pinned) text += '*';
  if (device.moving_to) text += fmt::format("→{}", lease::name_of(*device.moving_to));
  return text;
}

// What the screen is made of, and how wide its columns are.
class painter {
 public:
  painter(const top_state& state, std::size_t width, bool colours)
      : state_(state),
        width_(width),
        colours_(colours),
        narrow_(width < 60),
        barred_(width >= 76),
        wide_(width >= 100) {
    for (const top_device& device : state.devices) {
      name_ = std::max(name_, columns_of(device.name));
      role_ = std::max(role_, columns_of(role_words(device, narrow_)));
      held_ = std::max(held_, columns_of(device.held_by));
    }
    name_ = std::min(name_, narrow_ ? width / 3 : std::size_t{16});
    held_ = std::min(held_, width / (wide_ ? 5 : 6));
    for (const top_job& job : state.jobs) id_ = std::max(id_, columns_of(job.id));
    id_ = std::min(id_, width / 3);
  }

  std::string title() const {
    return line()
        .put("tandem", bold)
        .put(" at " + state_.address)
        .at_end(state_.policy + "  " + clock_of(state_.now_ms))
        .text();
  }
  std::string numbers() const {
    row out = line();
    against(out, narrow_ ? "ttft" : "first token", state_.ttft_ms, state_.ttft_target_ms);
    against(out, narrow_ ? "itl" : "between tokens", state_.itl_ms, state_.itl_target_ms);
    if (state_.waiting_ms > 0)
      out.put(fmt::format("waiting {:.0f} ms", state_.waiting_ms),
              state_.waiting_ms > state_.ttft_target_ms ? alarm : plain);
    return out.text();
  }
  std::string rates() const {
    return line()
        .put(narrow_ ? "serve " : "serving ")
        .put(rate_of(state_.served_per_second), look_of(role::serve).colour)
        .put(narrow_ ? " train " : " tok/s  training ")
        .put(rate_of(state_.trained_per_second), look_of(role::train).colour)
        .put(" tok/s")
        .at_end(fmt::format("{} moves, {} refused", state_.moves, state_.refusals))
        .text();
  }
  std::string device_heading() const {
    row out = line();
    out.left("DEVICE", name_, bold).left("ROLE", role_, bold);
    if (!narrow_) out.left("HELD BY", held_, bold);
    out.right("BUSY", 4, bold);
    if (!narrow_) out.right("RUN", 3, bold).right("QUEUE", 5, bold);
    if (wide_) out.right("MEM", 4, bold);
    return out.put(fmt::format("{}{} MIN", narrow_ ? "" : "LAST ", state_.window_ms / 60'000), bold)
        .text();
  }
  std::string device(const top_device& shown) const {
    row out = line();
    out.left(shown.name, name_).left(role_words(shown, narrow_), role_, look_of(shown.role).colour);
    if (!narrow_) out.left(shown.held_by, held_);
    out.right(percent(shown.busy), 4);
    if (!narrow_)
      out.right(std::to_string(shown.running), 3)
          .right(std::to_string(shown.queued), 5, shown.queued > 0 ? bold : plain);
    if (wide_) out.right(percent(shown.memory), 4);
    const std::size_t before = out.columns();
    if (before >= width_) return out.text();
    const auto cells =
        timeline(shown.spans, state_.now_ms - state_.window_ms, state_.now_ms, width_ - before);
    for (std::size_t i = 0; i < cells.size();) {
      const look one = look_of(cells[i]);
      std::string run;
      for (const auto same = cells[i]; i < cells.size() && cells[i] == same; ++i) run += one.glyph;
      out.put(run, one.colour);
    }
    return out.text();
  }
  std::string legend() const {
    row out = line();
    for (const role r : {role::serve, role::shared, role::train, role::idle})
      out.put(look_of(r).glyph, look_of(r).colour)
          .put(fmt::format(" {}{}", lease::name_of(r), narrow_ ? " " : "  "));
    if (!narrow_ && std::ranges::any_of(state_.devices, &top_device::pinned)) out.put("* by hand");
    return out.text();
  }
  std::string job_heading() const {
    row out = line();
    out.left("JOB", id_, bold);
    if (barred_) out.left("", bar_columns, bold);
    out.right("STEP", 11, bold).right("LOSS", 8, bold);
    if (!narrow_) out.right("TOKENS", 10, bold).right("ON", 9, bold);
    return out.text();
  }
  std::string job(const top_job& shown) const {
    row out = line();
    out.left(shown.id, id_);
    if (barred_) {
      const double done = shown.step_count > 0 ? static_cast<double>(shown.step) /
                                                     static_cast<double>(shown.step_count)
                                               : 0.0;
      const auto full =
          static_cast<std::size_t>(std::clamp(done, 0.0, 1.0) * static_cast<double>(bar_columns));
      std::string bar;
      for (std::size_t i = 0; i < bar_columns; ++i) bar += i < full ? "━" : "┄";
      out.left(bar, bar_columns, look_of(role::train).colour);
    }
    out.right(fmt::format("{}/{}", shown.step, shown.step_count), 11)
        .right(fmt::format("{:.4f}", shown.loss), 8);
    if (!narrow_)
      out.right(std::to_string(shown.trained_tokens), 10)
          .right(fmt::format("{} device{}", shown.working_devices,
                             shown.working_devices == 1 ? "" : "s"),
                 9);
    return out.text();
  }
  std::string more(std::size_t count, std::string_view what) const {
    return line().put(fmt::format("… {} more {}", count, what), faint).text();
  }
  std::string trouble() const { return line().put(state_.trouble, alarm).text(); }

 private:
  static constexpr std::size_t bar_columns = 12;

  row line() const { return {width_, colours_}; }

  // "first token 121/500 ms", marked when it is above the target.
  void against(row& out, std::string_view what, double ms, double target_ms) const {
    const bool over = target_ms > 0 && ms > target_ms;
    out.put(fmt::format("{} ", what));
    out.put(ms > 0 ? fmt::format("{:.0f}", ms) : "–", over ? alarm : plain);
    out.put(fmt::format("/{:.0f} ms{} {}", target_ms, over ? "!" : "", narrow_ ? "" : " "));
  }

  const top_state& state_;
  std::size_t width_;
  bool colours_;
  bool narrow_;  // only what matters most
  bool barred_;
  bool wide_;
  std::size_t name_ = 6;
  std::size_t role_ = 6;
  std::size_t held_ = 7;
  std::size_t id_ = 3;
};

// As many as fit into `room` lines, the last of which says how many are left out.
template <class Items, class Paint>
void put_list(std::vector<std::string>& lines, const Items& items, std::size_t room,
              std::string_view what, const painter& paint, Paint one) {
  const std::size_t shown =
      items.size() <= room ? items.size() : room - std::min(room, std::size_t{1});
  for (std::size_t i = 0; i < shown; ++i) lines.push_back(one(items[i]));
  if (shown < items.size() && room > 0) lines.push_back(paint.more(items.size() - shown, what));
}

}  // namespace

std::vector<std::optional<role>> timeline(const std::vector<top_span>& spans, std::int64_t from_ms,
                                          std::int64_t until_ms, std::size_t cells) {
  constexpr std::size_t kinds = 5;  // the four roles, and none
  constexpr std::size_t none = 4;
  std::vector<std::array<double, kinds>> held(cells);
  const double cell_ms = static_cast<double>(until_ms - from_ms) /
                         static_cast<double>(std::max(cells, std::size_t{1}));
  if (cell_ms <= 0) return std::vector<std::optional<role>>(cells);
  for (const top_span& span : spans) {
    const double begin = static_cast<double>(std::max(span.from_ms, from_ms) - from_ms) / cell_ms;
    const double end = static_cast<double>(std::min(span.until_ms, until_ms) - from_ms) / cell_ms;
    const std::size_t kind = span.role ? static_cast<std::size_t>(*span.role) : none;
    for (auto i = static_cast<std::size_t>(std::max(begin, 0.0)); i < cells; ++i) {
      const auto cell = static_cast<double>(i);
      if (cell >= end) break;
      held[i][kind] += std::min(end, cell + 1) - std::max(begin, cell);
    }
  }
  std::vector<std::optional<role>> found;
  for (const auto& shares : held) {
    const auto most = std::max_element(shares.begin(), shares.end());
    const auto kind = static_cast<std::size_t>(most - shares.begin());
    found.push_back(*most <= 0 || kind == none ? std::nullopt
                                               : std::optional(static_cast<role>(kind)));
  }
  return found;
}

std::vector<std::string> draw_top(const top_state& state, std::size_t width, std::size_t height,
                                  bool colours) {
  const painter paint(state, width, colours);
  const bool airy = height >= 16;
  std::vector<std::string> lines = {paint.title(), paint.numbers(), paint.rates()};
  if (!state.trouble.empty()) lines.push_back(paint.trouble());
  if (airy) lines.emplace_back();
  lines.push_back(paint.device_heading());

  // Jobs may take a third; devices have the rest.
  const std::size_t around = lines.size() + 1 + (airy ? 1 : 0);
  const std::size_t room = height > around ? height - around : 0;
  const std::size_t heading = state.jobs.empty() ? 0 : (airy ? 2 : 1);
  const std::size_t for_jobs =
      state.jobs.empty()
          ? 0
          : std::min(heading + state.jobs.size(),
                     std::max(room / 3, room - std::min(room, state.devices.size())));
  put_list(lines, state.devices, room - std::min(room, for_jobs), "devices", paint,
           [&](const top_device& device) { return paint.device(device); });
  lines.push_back(paint.legend());
  if (for_jobs > heading) {
    if (airy) lines.emplace_back();
    lines.push_back(paint.job_heading());
    put_list(lines, state.jobs, for_jobs - heading, "jobs", paint,
             [&](const top_job& job) { return paint.job(job); });
  }
  if (lines.size() > height) lines.resize(height);
  return lines;
}

}  // namespace tandem::gateway::command
