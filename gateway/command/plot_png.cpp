#include "gateway/command/plot_png.hpp"

#include <fmt/format.h>

#ifdef TANDEM_CAIRO
#include <cairo.h>

#include <algorithm>
#include <memory>
#endif

namespace tandem::gateway::command {

#ifdef TANDEM_CAIRO
namespace {

constexpr int width = 1200;  // pixels, all of these
constexpr int height = 675;
constexpr double left = 90;
constexpr double right = width - 40.0;
constexpr double top = 100;
constexpr double bottom = height - 70.0;

struct colour {
  double red, green, blue;
};
constexpr colour ground{1, 1, 1};
constexpr colour ink{0.106, 0.125, 0.157};
constexpr colour soft{0.384, 0.424, 0.478};
constexpr colour grid{0.886, 0.898, 0.918};
constexpr colour train_colour{0.231, 0.388, 0.847};
constexpr colour valid_colour{0.851, 0.541, 0.169};

using surface = std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)>;
using painter = std::unique_ptr<cairo_t, decltype(&cairo_destroy)>;

class picture {
 public:
  picture(cairo_t* to, const axis& steps, const axis& losses)
      : to_(to), steps_(steps), losses_(losses) {}

  void frame(std::string_view title) {
    use(ground);
    cairo_paint(to_);
    cairo_select_font_face(to_, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_line_width(to_, 1);
    for (const double tick : losses_.ticks) {
      segment(left, y(tick), right, y(tick), grid);
      write(losses_.label(tick), left - 12, y(tick) + 6, 1, 17, soft);
    }
    for (const double tick : steps_.ticks) {
      segment(x(tick), bottom, x(tick), bottom + 7, soft);
      write(steps_.label(tick), x(tick), bottom + 29, 0.5, 17, soft);
    }
    segment(left, bottom, right, bottom, soft);
    segment(left, top, left, bottom, soft);
    write("step", right, height - 14, 1, 17, soft);
    write(std::string(title), left, 40, 0, 21, ink);
  }

  void line(const std::vector<loss_point>& points, const colour& c) {
    use(c);
    cairo_set_line_width(to_, 2.2);
    cairo_set_line_join(to_, CAIRO_LINE_JOIN_ROUND);
    cairo_new_path(to_);  // text leaves its end as the current point
    for (const loss_point& point : points) cairo_line_to(to_, x(point.step), y(point.loss));
    cairo_stroke(to_);
    if (points.size() == 1) disc(x(points.front().step), y(points.front().loss), 4);
  }

  void discs(const std::vector<loss_point>& points, const colour& c) {
    use(c);
    for (const loss_point& point : points) disc(x(point.step), y(point.loss), 5);
  }

  // From the right edge to the left; where the next one ends.
  double legend(const std::string& text, const colour& c, double end) {
    const double begin = write(text, end, 76, 1, 17, ink);
    use(c);
    disc(begin - 14, 70, 6);
    return begin - 44;
  }

 private:
  double x(double step) const { return left + (right - left) * steps_.share(step); }
  double y(double loss) const { return bottom - (bottom - top) * losses_.share(loss); }

  void use(const colour& c) { cairo_set_source_rgb(to_, c.red, c.green, c.blue); }
  void disc(double at_x, double at_y, double radius) {
    cairo_new_path(to_);
    cairo_arc(to_, at_x, at_y, radius, 0, 6.2832);
    cairo_fill(to_);
  }
  void segment(double x0, double y0, double x1, double y1, const colour& c) {
    use(c);
    cairo_move_to(to_, x0, y0);
    cairo_line_to(to_, x1, y1);
    cairo_stroke(to_);
  }
  // `anchor` 0: begins at x; 0.5: centred; 1: ends there. Where it begins.
  double write(const std::string& text, double at_x, double at_y, double anchor, double size,
               const colour& c) {
    cairo_set_font_size(to_, size);
    cairo_text_extents_t extents;
    cairo_text_extents(to_, text.c_str(), &extents);
    use(c);
    cairo_move_to(to_, at_x - anchor * extents.x_advance, at_y);
    cairo_show_text(to_, text.c_str());
    return at_x - anchor * extents.x_advance;
  }

  cairo_t* to_;
  const axis& steps_;
  const axis& losses_;
};

}  // namespace

result<void> plot_as_png(const loss_curve& curve, std::string_view title,
                         const std::filesystem::path& file) {
  const axis steps = step_axis(curve, 12);
  const axis losses = loss_axis(curve, 8);
  const surface image(cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height),
                      cairo_surface_destroy);
  const painter brush(cairo_create(image.get()), cairo_destroy);
  picture drawn(brush.get(), steps, losses);
  drawn.frame(title);
  drawn.line(curve.train, train_colour);
  if (curve.valid.size() > 1) drawn.line(curve.valid, valid_colour);
  drawn.discs(curve.valid, valid_colour);
  double end = right;
  if (!curve.valid.empty()) {
    end =
        drawn.legend(fmt::format("validation {:.4f}", curve.valid.back().loss), valid_colour, end);
  }
  if (!curve.train.empty()) {
    drawn.legend(fmt::format("training {:.4f}", curve.train.back().loss), train_colour, end);
  }
  cairo_surface_flush(image.get());
  const cairo_status_t status = cairo_surface_write_to_png(image.get(), file.c_str());
  if (status != CAIRO_STATUS_SUCCESS) {
    return error{errc::io,
                 fmt::format("cannot write {}: {}", file.string(), cairo_status_to_string(status)),
                 {}};
  }
  return {};
}

#else

result<void> plot_as_png(const loss_curve&, std::string_view, const std::filesystem::path&) {
  return error{errc::unsupported,
               "this build draws no PNG files: install libcairo2-dev, configure and build again",
               {}};
}

#endif

}  // namespace tandem::gateway::command
