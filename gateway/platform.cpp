// Wires everything for `tandem up` and keeps it alive: devices, actors, model, HTTP; then signals.
#include "gateway/platform.hpp"

#include "actors/coordinator.hpp"
#include "actors/gateway.hpp"
#include "actors/keeper.hpp"
#include "actors/node.hpp"
#include "actors/serve_coordinator.hpp"
#include "actors/supervisor.hpp"
#include "gateway/actor_engine.hpp"
#include "gateway/leases/lease_metrics.hpp"
#include "gateway/leases/routes.hpp"
#include "gateway/nodes/actor_house.hpp"
#include "gateway/nodes/head.hpp"
#include "gateway/nodes/routes.hpp"
#include "gateway/openai/routes.hpp"
#include "gateway/pages/routes.hpp"
#include "gateway/process_signals.hpp"
#include "gateway/server.hpp"
#include "gateway/store_opening.hpp"
#include "gateway/training.hpp"
#include "runtime/device_spec.hpp"
#include "runtime/formats/gguf.hpp"
#include "runtime/log.hpp"
#include "runtime/model/weights.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace tandem::gateway {
namespace {

using namespace std::chrono_literals;

constexpr int status_refused = 1;
constexpr int status_broken = 3;

int refuse(const error& why) {
  fmt::print(stderr, "tandem: {}\n", why.detail);
  return status_refused;
}

// When this program was loaded. The kernel's own start time of the process would count what a
// script did before it became this program by exec.
const auto program_began = std::chrono::steady_clock::now();

std::chrono::milliseconds program_age() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() -
                                                               program_began);
}

// What a model needs besides its weights: read while the device packs those.
struct model_texts {
  std::shared_ptr<const text::tokenizer> tokenizer;
  std::shared_ptr<const text::chat_template> chat_template;
  std::string no_chat_reason;
};

result<std::string> read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    return error{errc::not_found, fmt::format("cannot read '{}'", path.string()),
                 "model.chat_template"};
  return std::string(std::istreambuf_iterator<char>(file), {});
}

result<model_texts> texts_of(const model::model_source& source, const model_settings& settings) {
  model_texts texts;
  const auto path = source.tokenizer_path();
  if (!path) {
    texts.no_chat_reason = "the model has no tokenizer: send token ids to /v1/completions";
    return texts;
  }
  std::shared_ptr<const text::tokenizer> tokenizer;
  if (std::filesystem::is_directory(*path)) {
    auto read = text::tokenizer::from_folder(*path);
    if (!read) return read.error();
    tokenizer = *std::move(read);
  } else {
    auto file = formats::gguf_file::open(*path);
    if (!file) return file.error();
    auto read = text::tokenizer::from_gguf(*file);
    if (!read) return read.error();
    tokenizer = *std::move(read);
  }
  texts.tokenizer = std::move(tokenizer);

  auto written = source.chat_template();
  if (!settings.chat_template.empty()) {
    auto read = read_text(settings.chat_template);
    if (!read) return read.error();
    written = *std::move(read);
  }
  if (!written) {
    texts.no_chat_reason =
        "the model ships no chat template: use /v1/completions, or set model.chat_template";
    return texts;
  }
  auto compiled = text::chat_template::compile(*written);
  if (!compiled)
    return error{errc::bad_file,
                 "the model's chat template does not compile: " + compiled.error().detail +
                     "; set model.chat_template to a corrected file",
                 "model.chat_template"};
  texts.chat_template = std::make_shared<const text::chat_template>(*std::move(compiled));
  return texts;
}

std::size_t ready_lanes(const actors::serve_report& report) {
  return static_cast<std::size_t>(std::count_if(report.lanes.begin(), report.lanes.end(),
                                                [](const auto& l) { return l.ready; }));
}

std::shared_ptr<const served_model> describe(const model::model_source& source,
                                             const settings& configuration, model_texts texts,
                                             const actors::serve_report& report) {
  auto model = std::make_shared<served_model>();
  const auto& lane = *std::find_if(report.lanes.begin(), report.lanes.end(),
                                   [](const auto& l) { return l.ready; });
  model->id = configuration.model.name.empty() ? source.name() : configuration.model.name;
  model->family = source.config().family;
  model->precision = lane.model.precision;
  model->created = std::time(nullptr);
  model->context_length = lane.model.context_length;
  model->vocabulary_size = source.config().vocabulary_size;
  model->parameter_count = lane.model.parameter_count;
  model->weights_version = lane.model.weights_version;
  model->eos_ids = source.config().eos_ids;
  model->defaults = source.defaults();
  for (auto id : model->defaults.eos_ids)
    if (std::find(model->eos_ids.begin(), model->eos_ids.end(), id) == model->eos_ids.end())
      model->eos_ids.push_back(id);
  model->tokenizer = std::move(texts.tokenizer);
  model->chat_template = std::move(texts.chat_template);
  model->no_chat_reason = std::move(texts.no_chat_reason);
  for (const auto& l : report.lanes) model->devices.push_back(l.held.device);
  return model;
}

std::string url_of(const settings& configuration, int port) {
  const auto& server = configuration.server;
  auto host = server.host;
  if (host == "0.0.0.0" || host == "::") host = "127.0.0.1";
  if (host.find(':') != std::string::npos) host = "[" + host + "]";
  return fmt::format("{}://{}:{}", server.tls_cert.empty() ? "http" : "https", host, port);
}

lease::policy_settings policy_of(const settings& configuration) {
  const auto& share = configuration.share;
  return {.kind = *lease::policy_from(share.policy),
          .min_serve_devices = share.min_serve_devices,
          .max_train_devices = share.max_train_devices,
          .cooldown_ms = share.cooldown_ms,
          .ttft_target_ms = configuration.serve.ttft_target_ms,
          .itl_target_ms = configuration.serve.itl_target_ms};
}

}  // namespace

int run_platform(const platform_options& options) {
  const auto& configuration = options.configuration;
  if (auto level = parse_log_level(configuration.log.level); !level)
    return refuse(level.error());
  else if (auto opened = open_log(*level, configuration.log.file); !opened)
    return refuse(opened.error());
  process_signals signals;  // before any thread is made

  auto source = model::model_source::open(configuration.model.path);
  if (!source) return refuse(source.error());
  auto devices = devices_from(configuration.devices.list, configuration.devices.threads_per_device,
                              configuration.devices.memory_fraction, this_machine());
  if (!devices) return refuse(devices.error());
  std::int64_t kv_bytes = 0;
  if (configuration.model.kv_memory != "auto") {
    auto bytes = parse_bytes(configuration.model.kv_memory);
    if (!bytes) return refuse(bytes.error());
    kv_bytes = *bytes;
  }

  auto texts = texts_of(**source, configuration.model);
  if (!texts) return refuse(texts.error());

  auto store = open_store(configuration, signals);
  if (!store && store.error().code == errc::cancelled) return 0;  // it stood by when it was ended
  if (!store) return refuse(store.error());

  auto head = cluster_head::open(configuration, *devices);
  if (!head) return refuse(head.error());
  actor_house house((*head)->take_config());
  auto& system = house.system();
  auto board = std::make_shared<actors::gateway_board>();
  auto leases = std::make_shared<actors::lease_board>();
  const actors::coordinator_options lending{
      .policy = policy_of(configuration), .book = store->kept->leases(), .board = leases};
  // The keeper ends it, and whichever comes after it.
  auto coordinator = system.spawn(actors::coordinator, lending);
  auto keeper = house.house(
      system.spawn(actors::keeper, actors::keeper_options{.coordinator = lending}, coordinator));
  actors::serve_options serve;
  serve.model = configuration.model.name.empty() ? (*source)->name() : configuration.model.name;
  serve.load = {.path = configuration.model.path,
                .format = configuration.model.format,
                .kv_format = configuration.model.kv_format,
                .context_length = configuration.model.context_length,
                .kv_bytes = kv_bytes,
                .max_sequences = configuration.model.max_sequences,
                .max_batch_tokens = configuration.serve.max_batch_tokens};
  serve.tokenizer = texts->tokenizer;
  serve.prefill_chunk_tokens = configuration.serve.prefill_chunk_tokens;
  serve.max_queued = configuration.serve.max_queued;
  serve.prefix_cache = configuration.serve.prefix_cache;
  auto serve_coordinator =
      house.house(system.spawn(actors::serve_coordinator, std::move(serve), coordinator));
  auto door = house.house(system.spawn(actors::gateway, serve_coordinator, board, coordinator));
  (*head)->start(house, keeper, coordinator, leases, store->seat.get());
  const lead_watch tells_nodes(*store, (*head)->roster());
  auto node = house.house(system.spawn(
      actors::node, (*head)->node_options([&signals] { signals.wake(); }), coordinator));
  caf::anon_send((*head)->roster(),
                 actors::watch_workers{head_name, caf::actor_cast<caf::actor>(node)});
  const auto tell_of_coordinators = [&keeper](const auto& who) {
    caf::anon_send(keeper, actors::keep_told{caf::actor_cast<caf::actor>(who)});
  };
  tell_of_coordinators(serve_coordinator);
  tell_of_coordinators(door);
  tell_of_coordinators(node);
  tell_of_coordinators((*head)->roster());
  house.house(system.spawn(actors::supervisor, house.housed(),
                           [&signals](std::string why) { signals.broken(std::move(why)); }));

  const auto inside_max = configuration.serve.max_queued +
                          configuration.model.max_sequences * static_cast<int>(devices->size());
  auto engine = std::make_shared<actor_engine>(
      door, board, inside_max, std::chrono::milliseconds(configuration.server.request_timeout_ms));
  auto routes = std::make_shared<router>();
  std::unique_ptr<server> http;
  const auto end_live_streams = add_openai_routes(*routes, engine, configuration, store->kept);
  const auto end_lease_streams = add_lease_routes(*routes, leases, lease_control_by(door));
  add_node_routes(*routes, (*head)->board(), (*head)->roster());
  add_page_routes(*routes, engine, configuration,
                  [&http, leases] { return lease_metrics(*leases) + http->metrics(); });
  auto made = server::create(configuration.server, routes);
  if (!made) return refuse(made.error());
  http = *std::move(made);
  http->start();
  tell_address(*store, configuration, http->port());

  board->on_report([&signals] { signals.wake(); });
  std::optional<actors::serve_report> report;
  const auto up = signals.wait([&] {
    report = board->newest();
    const auto given_up = (*head)->given_up().size();
    return (report &&
            ready_lanes(*report) + report->failures.size() + given_up >= devices->size()) ||
           given_up == devices->size();
  });
  if (up == process_signals::outcome::broken) {
    fmt::print(stderr, "tandem: {}\n", signals.why());
    http->stop();
    return status_broken;
  }
  if (up == process_signals::outcome::ask_to_end) {
    http->stop();
    return 0;
  }
  if (!report || ready_lanes(*report) == 0) {
    http->stop();
    return refuse(report && !report->failures.empty() ? report->failures.back()
                                                      : (*head)->given_up().back());
  }
  for (const auto& why : report->failures) log_warning("a device stays unused: {}", why.detail);
  auto model = describe(**source, configuration, *std::move(texts), *report);
  engine->publish(model);
  training jobs(system, store->kept);
  auto desk = house.house(
      jobs.open_desk(configuration, *model, (*source)->config(), coordinator, serve_coordinator));
  tell_of_coordinators(desk);
  house.house(system.spawn(actors::supervisor, std::vector{caf::actor_cast<caf::actor>(desk)},
                           [&signals](std::string why) { signals.broken(std::move(why)); }));
  if (!options.quiet)
    for (const auto& l : report->lanes)
      if (l.ready)
        fmt::print("{} on {} ({}): {}, context {}, {} KV blocks of 16 tokens ({})\n", model->id,
                   l.held.device, l.facts.backend, l.model.precision, l.model.context_length,
                   l.model.kv_blocks, l.model.kv_format);
  if (const auto joins_at = (*head)->address(); !joins_at.empty())
    fmt::print("cluster {}\n", joins_at);
  fmt::print("ready {} in {} ms\n", url_of(configuration, http->port()), program_age().count());
  std::fflush(stdout);

  const auto end = signals.wait([] { return false; });
  int status = 0;
  if (end == process_signals::outcome::broken) {
    fmt::print(stderr, "tandem: {}\n", signals.why());
    status = status_broken;
  } else {
    log_info("draining: {} requests inside", engine->requests_inside());
    engine->drain();
    end_live_streams();
    end_lease_streams();
    http->drain();
    const std::chrono::milliseconds patience(configuration.server.drain_timeout_ms);
    if (!jobs.park(patience))
      log_warning(
          "the running job did not reach the end of its step in {} ms: it goes on from "
          "its newest checkpoint",
          patience.count());
    signals.wait_until(
        std::chrono::steady_clock::now() +
            std::chrono::milliseconds(configuration.server.drain_timeout_ms),
        [&] { return engine->requests_inside() == 0 && http->counts().requests_active == 0; });
  }
  board->on_report({});
  http->stop();
  return status;
}

}  // namespace tandem::gateway
