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
#include "gateway/nodes/doorkeeper.hpp"
#include "gateway/nodes/head.hpp"
#include "gateway/nodes/routes.hpp"
#include "gateway/openai/routes.hpp"
#include "gateway/pages/routes.hpp"
#include "gateway/process_signals.hpp"
#include "gateway/served_texts.hpp"
#include "gateway/server.hpp"
#include "gateway/store_opening.hpp"
#include "gateway/training.hpp"
#include "runtime/device_spec.hpp"
#include "runtime/log.hpp"
#include "runtime/model/weights.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
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
  if (devices) devices = grouped(*std::move(devices), configuration.model.tensor_parallel);
  if (!devices) return refuse(devices.error());
  std::int64_t kv_bytes = 0;
  if (configuration.model.kv_memory != "auto") {
    auto bytes = parse_bytes(configuration.model.kv_memory);
    if (!bytes) return refuse(bytes.error());
    kv_bytes = *bytes;
  }

  auto chat_template = chat_template_of(configuration.model);
  if (!chat_template) return refuse(chat_template.error());
  auto texts = texts_of(**source, *chat_template);
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
  const auto model_name =
      configuration.model.name.empty() ? (*source)->name() : configuration.model.name;
  serve.model = model_name;
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
  auto model = describe(**source, model_name, std::time(nullptr), *std::move(texts), *report);
  engine->publish(model);
  training jobs(system, store->kept);
  auto desk = house.house(
      jobs.open_desk(configuration, *model, (*source)->config(), coordinator, serve_coordinator));
  tell_of_coordinators(desk);
  auto terms =
      terms_for_doors(configuration, *model, *std::move(chat_template), http->port(), inside_max);
  if (!terms) return refuse(terms.error());
  (*head)->tell_doors(house, *std::move(terms), serve_coordinator);
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
  fmt::print("ready {} in {} ms\n", url_of(configuration.server, http->port()),
             program_age().count());
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
