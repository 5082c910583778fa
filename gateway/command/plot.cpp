// `tandem plot`: a job's loss curve, in the terminal or as a PNG file.
#include "gateway/command/commands.hpp"
#include "gateway/command/jobs.hpp"
#include "gateway/command/plot_png.hpp"
#include "gateway/command/plot_text.hpp"

#include <fmt/format.h>

#include <ostream>

namespace tandem::gateway::command {
namespace {

using text::value;

struct plot_call {
  std::string id;
  std::string png;
  bool ascii = false;
};

value as_json(const std::vector<loss_point>& points) {
  value::array all;
  for (const loss_point& point : points) {
    all.emplace_back(
        value::object{{"step", static_cast<std::int64_t>(point.step)}, {"loss", point.loss}});
  }
  return all;
}

int run_plot(const invocation& call, const plot_call& wanted) {
  const console& io = call.io;
  auto client = connect(call);
  if (!client) return refuse_usage(io, client.error().detail);
  const auto job = find_job_by_prefix(*client, wanted.id);
  if (!job) return refuse(io, job.error());
  const auto events = all_events(*client, job->id);
  if (!events) return refuse(io, events.error());
  const loss_curve curve = curve_from(*events);
  if (call.json) {
    io.out << value(value::object{{"id", job->id},
                                  {"train", as_json(curve.train)},
                                  {"valid", as_json(curve.valid)}})
                  .to_json()
           << std::endl;
    return done;
  }
  if (curve.empty()) {
    return refuse(io, {errc::unavailable,
                       fmt::format("{} has no losses yet: it is {}", job->id, job->status),
                       {}});
  }
  const std::string title =
      fmt::format("{} on {}, {}: loss by step", job->id, job->base_model, job->status);
  if (!wanted.png.empty()) {
    const auto written = plot_as_png(curve, title, wanted.png);
    if (!written) return refuse(io, written.error());
    io.out << wanted.png << std::endl;
    return done;
  }
  terminal_size size = size_of_terminal(io);
  if (io.out_is_terminal) --size.rows;  // the shell's next line
  const bool colour = io.out_is_terminal && environment_value(io, "NO_COLOR").empty();
  io.out << plot_as_text(curve, title, size, {colour, wanted.ascii}) << std::flush;
  return done;
}

}  // namespace

void add_plot(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(
      app, "plot", "A job's loss curve: here, or as a PNG file",
      "tandem plot ftjob-3f2a --png loss.png\n\nThe beginning of an id is enough while it is the "
      "only one. As wide as the terminal, 80 by 24 in a\npipe. --json prints the points.");
  add_server_options(*command, call);
  add_json_option(*command, call);
  auto wanted = std::make_shared<plot_call>();
  command->add_option("ID", wanted->id, "The job, or the beginning of its id")->required();
  command->add_option("--png", wanted->png, "Write a picture to this file instead")
      ->type_name("FILE");
  command->add_flag("--ascii", wanted->ascii, "No characters beyond ASCII");
  command->callback([wanted, &call] { call.status = run_plot(call, *wanted); });
}

}  // namespace tandem::gateway::command
