#include "gateway/engine_report.hpp"

#include "runtime/memory/ledger.hpp"

#include <fmt/format.h>
#include <boost/json.hpp>

#include <functional>
#include <iterator>

namespace tandem::gateway {
namespace {

namespace json = boost::json;

std::string_view name_of(readiness state) {
  switch (state) {
    case readiness::starting:
      return "starting";
    case readiness::ready:
      return "ready";
    case readiness::draining:
      return "draining";
    case readiness::failed:
      return "failed";
  }
  return "failed";
}

// One series with a value per device.
void series(std::string& out, const actors::serve_report& report, std::string_view name,
            std::string_view type, std::string_view help,
            const std::function<double(const actors::lane_report&)>& value) {
  fmt::format_to(std::back_inserter(out), "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
  for (const auto& lane : report.lanes)
    fmt::format_to(std::back_inserter(out), "{}{{device=\"{}\"}} {}\n", name, lane.held.device,
                   value(lane));
}

json::object memory_of(const serve::device_facts& facts) {
  json::object by_owner;
  std::uint64_t used = 0;
  for (std::size_t i = 0; i < memory::owner_count; ++i) {
    by_owner[memory::name_of(static_cast<memory::owner>(i))] = facts.memory_by_owner[i];
    used += facts.memory_by_owner[i];
  }
  return {{"capacity_bytes", facts.memory_capacity},
          {"used_bytes", used},
          {"by_owner", std::move(by_owner)}};
}

json::object device_of(const actors::lane_report& lane) {
  const auto& counts = lane.counts;
  return {{"name", lane.held.device},
          {"backend", lane.facts.backend},
          {"threads", lane.facts.threads},
          {"ready", lane.ready},
          {"lease",
           {{"role", lease::name_of(lane.held.held_as)},
            {"holder", lane.held.holder},
            {"epoch", lane.held.at}}},
          {"memory", memory_of(lane.facts)},
          {"queued", counts.queued},
          {"running", counts.running},
          {"kv_blocks",
           {{"total", counts.blocks_total},
            {"free", counts.blocks_free},
            {"cached", counts.blocks_cached}}},
          {"preemptions", counts.preemptions},
          {"prompt_tokens_computed", counts.prompt_tokens_computed},
          {"prompt_tokens_cached", counts.prompt_tokens_cached},
          {"tokens_generated", counts.tokens_generated},
          {"steps", lane.steps},
          {"rows", lane.rows},
          {"busy_seconds", static_cast<double>(lane.busy_ns) * 1e-9},
          {"step_running_seconds", static_cast<double>(lane.step_running_ns) * 1e-9}};
}

}  // namespace

std::string metrics_text(const std::optional<actors::serve_report>& report, int requests_inside) {
  std::string out;
  fmt::format_to(std::back_inserter(out),
                 "# HELP tandem_requests_inside Requests accepted and not yet ended.\n"
                 "# TYPE tandem_requests_inside gauge\ntandem_requests_inside {}\n",
                 requests_inside);
  if (!report) return out;
  const auto& r = *report;
  using lane = actors::lane_report;
  auto number = [](auto v) { return static_cast<double>(v); };
  series(out, r, "tandem_device_ready", "gauge", "1 while the device can serve.",
         [](const lane& l) { return l.ready ? 1.0 : 0.0; });
  series(out, r, "tandem_requests_waiting", "gauge", "Sequences queued, not yet started.",
         [&](const lane& l) { return number(l.counts.queued); });
  series(out, r, "tandem_requests_running", "gauge", "Sequences in the running batch.",
         [&](const lane& l) { return number(l.counts.running); });
  series(out, r, "tandem_kv_blocks_total", "gauge", "KV blocks of the device.",
         [&](const lane& l) { return number(l.counts.blocks_total); });
  series(out, r, "tandem_kv_blocks_free", "gauge",
         "KV blocks free for any request, those that only cache a prefix among them.",
         [&](const lane& l) { return number(l.counts.blocks_free); });
  series(out, r, "tandem_kv_blocks_cached", "gauge", "Free KV blocks that hold a known prefix.",
         [&](const lane& l) { return number(l.counts.blocks_cached); });
  series(out, r, "tandem_preemptions_total", "counter",
         "Sequences that gave their KV blocks back and were read again.",
         [&](const lane& l) { return number(l.counts.preemptions); });
  series(out, r, "tandem_prompt_tokens_computed_total", "counter", "Prompt tokens computed.",
         [&](const lane& l) { return number(l.counts.prompt_tokens_computed); });
  series(out, r, "tandem_prompt_tokens_cached_total", "counter",
         "Prompt tokens read from the prefix cache.",
         [&](const lane& l) { return number(l.counts.prompt_tokens_cached); });
  series(out, r, "tandem_tokens_generated_total", "counter", "Tokens generated.",
         [&](const lane& l) { return number(l.counts.tokens_generated); });
  series(out, r, "tandem_steps_total", "counter", "Inference steps done.",
         [&](const lane& l) { return number(l.steps); });
  series(out, r, "tandem_step_rows_total", "counter", "Rows of all steps, prompt and decode.",
         [&](const lane& l) { return number(l.rows); });
  series(out, r, "tandem_device_busy_seconds_total", "counter", "Time the device worked on steps.",
         [&](const lane& l) { return number(l.busy_ns) * 1e-9; });
  series(out, r, "tandem_lease_epoch", "gauge", "Epoch of the device's lease.",
         [&](const lane& l) { return number(l.held.at); });
  series(out, r, "tandem_device_memory_capacity_bytes", "gauge", "Memory the device may use.",
         [&](const lane& l) { return number(l.facts.memory_capacity); });
  fmt::format_to(std::back_inserter(out),
                 "# HELP tandem_device_memory_bytes Memory of the device by owner.\n"
                 "# TYPE tandem_device_memory_bytes gauge\n");
  for (const auto& l : r.lanes)
    for (std::size_t i = 0; i < memory::owner_count; ++i)
      fmt::format_to(std::back_inserter(out),
                     "tandem_device_memory_bytes{{device=\"{}\",owner=\"{}\"}} {}\n", l.held.device,
                     memory::name_of(static_cast<memory::owner>(i)), l.facts.memory_by_owner[i]);
  fmt::format_to(std::back_inserter(out),
                 "# HELP tandem_devices_lost_total Times a device died under its holder.\n"
                 "# TYPE tandem_devices_lost_total counter\ntandem_devices_lost_total {}\n",
                 r.devices_lost);
  return out;
}

std::string status_text(readiness state, const std::string& detail,
                        const std::vector<std::shared_ptr<const served_model>>& served,
                        const std::optional<actors::serve_report>& report, int requests_inside) {
  json::object status{
      {"state", name_of(state)}, {"detail", detail}, {"requests_inside", requests_inside}};
  json::array models;
  for (const auto& model : served)
    models.push_back(
        {{"id", model->id},
         {"parent", model->parent.empty() ? json::value() : json::value(model->parent)},
         {"family", model->family},
         {"precision", model->precision},
         {"context_length", model->context_length},
         {"parameter_count", model->parameter_count},
         {"weights_version", model->weights_version}});
  json::array devices;
  std::uint64_t lost = 0;
  if (report) {
    for (const auto& lane : report->lanes) devices.push_back(device_of(lane));
    lost = report->devices_lost;
  }
  status["models"] = std::move(models);
  status["devices"] = std::move(devices);
  status["devices_lost"] = lost;
  return json::serialize(status);
}

}  // namespace tandem::gateway
