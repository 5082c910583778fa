#include "runtime/settings_table.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

namespace tandem {
namespace {

constexpr double hour_ms = 3'600'000;
constexpr double int_max = std::numeric_limits<int>::max();

template <class Field>
setting number(std::string key, Field* field, double least, double most, std::string_view meaning) {
  return {std::move(key), field, meaning, least, most, {}, false};
}

template <class Field>
setting plain(std::string key, Field* field, std::string_view meaning) {
  return {std::move(key), field, meaning, 0, 0, {}, false};
}

setting choice(std::string key, std::string* field, std::vector<std::string_view> allowed,
               std::string_view meaning) {
  return {std::move(key), field, meaning, 0, 0, std::move(allowed), false};
}

error refuse(const setting& entry, std::string why) {
  return {errc::bad_request, entry.key + ": " + std::move(why), entry.key};
}

result<void> check_bounds(const setting& entry, double value) {
  if (value >= entry.least && value <= entry.most) return {};
  return refuse(entry, fmt::format("{:.15g} is out of range: give {:.15g} to {:.15g}", value,
                                   entry.least, entry.most));
}

result<void> set_number(const setting& entry, const setting_value& value) {
  const auto* whole = std::get_if<std::int64_t>(&value);
  const auto* real = std::get_if<double>(&value);
  auto* to_double = std::get_if<double*>(&entry.field);
  if (!whole && !(real && to_double)) {
    return refuse(entry, fmt::format("expected {}", expected_kind(entry)));
  }
  const double number = whole ? static_cast<double>(*whole) : *real;
  if (!std::isfinite(number)) return refuse(entry, "expected a finite number");
  if (const auto inside = check_bounds(entry, number); !inside) return inside;
  if (to_double) **to_double = number;
  if (auto* to_int = std::get_if<int*>(&entry.field)) **to_int = static_cast<int>(*whole);
  if (auto* to_int64 = std::get_if<std::int64_t*>(&entry.field)) **to_int64 = *whole;
  return {};
}

result<void> set_text(const setting& entry, const setting_value& value) {
  const auto* text = std::get_if<std::string>(&value);
  if (!text) return refuse(entry, fmt::format("expected {}", expected_kind(entry)));
  if (!entry.allowed.empty() && std::ranges::find(entry.allowed, *text) == entry.allowed.end()) {
    return refuse(entry, fmt::format("unknown value \"{}\": give one of {}", *text,
                                     fmt::join(entry.allowed, ", ")));
  }
  if (entry.is_bytes && *text != "auto") {
    const auto bytes = parse_bytes(*text);
    if (!bytes) return refuse(entry, bytes.error().detail);
  }
  **std::get_if<std::string*>(&entry.field) = *text;
  return {};
}

result<void> set_list(const setting& entry, const setting_value& value) {
  auto& list = **std::get_if<std::vector<std::string>*>(&entry.field);
  if (const auto* one = std::get_if<std::string>(&value)) {
    list = {*one};
    return {};
  }
  const auto* many = std::get_if<std::vector<std::string>>(&value);
  if (!many) return refuse(entry, fmt::format("expected {}", expected_kind(entry)));
  list = *many;
  return {};
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// "a, b" or a TOML-like ["a", "b"].
std::vector<std::string> list_from(std::string_view text) {
  text = trimmed(text);
  if (text.size() >= 2 && text.front() == '[' && text.back() == ']') {
    text = text.substr(1, text.size() - 2);
  }
  std::vector<std::string> items;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    std::string_view item = trimmed(text.substr(0, comma));
    if (item.size() >= 2 && item.front() == '"' && item.back() == '"') {
      item = item.substr(1, item.size() - 2);
    }
    if (!item.empty()) items.emplace_back(item);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return items;
}

}  // namespace

std::vector<setting> settings_table(settings& s) {
  auto& server = s.server;
  auto& model = s.model;
  auto& devices = s.devices;
  auto& serve = s.serve;
  return {
      plain("server.host", &server.host,
            "address to listen on; beyond loopback needs admin_key_file"),
      number("server.port", &server.port, 0, 65535, "0: any free port"),
      choice("server.gateways", &server.gateways, {"head", "all"},
             "who has an HTTP address; all: every node that joins, too"),
      plain("server.api_keys_file", &server.api_keys_file, "one key a line; empty: no key needed"),
      plain("server.admin_key_file", &server.admin_key_file, "the key of /admin/*"),
      plain("server.tls_cert", &server.tls_cert, "PEM certificate chain; needs tls_key"),
      plain("server.tls_key", &server.tls_key, "PEM private key; needs tls_cert"),
      plain("server.cors_origins", &server.cors_origins, "origins that browsers may call from"),
      number("server.threads", &server.threads, 1, 64, "threads that speak HTTP"),
      number("server.max_body_bytes", &server.max_body_bytes, 1024, 1 << 30, "larger bodies: 413"),
      number("server.max_file_bytes", &server.max_file_bytes, 1024, 1LL << 40,
             "larger uploaded files: 413"),
      number("server.max_header_bytes", &server.max_header_bytes, 1024, 1 << 20,
             "larger headers: 431"),
      number("server.max_connections", &server.max_connections, 1, 1 << 20, "more are turned away"),
      number("server.header_timeout_ms", &server.header_timeout_ms, 1, hour_ms,
             "from a request's first byte to the end of its header"),
      number("server.body_timeout_ms", &server.body_timeout_ms, 1, hour_ms,
             "for the whole body to arrive"),
      number("server.idle_timeout_ms", &server.idle_timeout_ms, 1, 24 * hour_ms,
             "between two requests of one connection"),
      number("server.write_timeout_ms", &server.write_timeout_ms, 1, hour_ms,
             "a reader that takes nothing for so long is cut off"),
      number("server.request_timeout_ms", &server.request_timeout_ms, 1, 24 * hour_ms,
             "a request's deadline"),
      number("server.heartbeat_ms", &server.heartbeat_ms, 1, hour_ms,
             "silence before a heartbeat is sent"),
      number("server.drain_timeout_ms", &server.drain_timeout_ms, 0, 24 * hour_ms,
             "grace for running requests on SIGTERM"),
      plain("model.path", &model.path,
            "a .gguf file, a Hugging Face folder, or a name under $TANDEM_HOME/models"),
      plain("model.name", &model.name, "what clients call it; empty: the file's name"),
      choice("model.format", &model.format,
             {"native", "f32", "bf16", "fp8", "q8_0", "q4_1", "dummy"},
             "precision of the weights in memory; native: the file's own"),
      number("model.context_length", &model.context_length, 0, int_max,
             "0: the model's own, at most what kv_memory holds"),
      number("model.max_sequences", &model.max_sequences, 1, 4096, "sequences decoded together"),
      {"model.kv_memory",
       &model.kv_memory,
       "\"512MiB\"; auto: a share of memory_fraction",
       0,
       0,
       {},
       true},
      choice("model.kv_format", &model.kv_format, {"auto", "f16", "f32"},
             "auto: f32 for f32 weights, else f16"),
      plain("model.chat_template", &model.chat_template,
            "a .jinja file instead of the model's own"),
      number("model.tensor_parallel", &model.tensor_parallel, 1, 64,
             "devices that hold the model together, in the order of devices.list"),
      plain("devices.list", &devices.list,
            "auto (the GPUs, else all cores), or names: cuda:0, cpu:0-3 (a range of cores)"),
      number("devices.threads_per_device", &devices.threads_per_device, 0, 1024,
             "0: every core of the device's range"),
      number("devices.memory_fraction", &devices.memory_fraction, 0.01, 0.95,
             "of a GPU's memory; of the machine's, over all CPU devices"),
      choice("devices.isolation", &devices.isolation, {"none", "process"},
             "process: each device in a worker process; none: all in this one"),
      number("serve.max_batch_tokens", &serve.max_batch_tokens, 1, 1 << 20, "tokens of one step"),
      number("serve.prefill_chunk_tokens", &serve.prefill_chunk_tokens, 1, 1 << 20,
             "prompt tokens of one step while others decode, at most"),
      number("serve.max_queued", &serve.max_queued, 1, 1 << 20, "waiting requests; more: 429"),
      plain("serve.prefix_cache", &serve.prefix_cache,
            "reuse the KV blocks of equal prompt beginnings"),
      number("serve.ttft_target_ms", &serve.ttft_target_ms, 1, hour_ms,
             "time to first token, queue included; training gives devices back to hold it"),
      number("serve.itl_target_ms", &serve.itl_target_ms, 1, hour_ms,
             "time between two tokens of a stream; likewise"),
      number("train.slots", &s.train.slots, 1, 64,
             "logical slots of a job's step, a power of two; the job's own option goes first"),
      plain("train.directory", &s.train.directory,
            "checkpoints and results; empty: $TANDEM_HOME/jobs"),
      choice("share.policy", &s.share.policy, {"latency_first", "train_first", "fixed"},
             "who gets a device: targets first, training first, or a fixed split"),
      number("share.min_serve_devices", &s.share.min_serve_devices, 1, 1 << 20,
             "devices that serve at any time, training or not"),
      number("share.max_train_devices", &s.share.max_train_devices, 0, 1 << 20,
             "devices that train at most, serving or not; 0: all"),
      number("share.cooldown_ms", &s.share.cooldown_ms, 0, hour_ms,
             "of low load before a device goes back to training"),
      plain("cluster.listen", &s.cluster.listen,
            "HOST:PORT that other machines join at; empty: nobody joins"),
      plain("cluster.advertise", &s.cluster.advertise,
            "what they dial instead, when cluster.listen is every interface"),
      plain("cluster.secret_file", &s.cluster.secret_file,
            "16 characters or more, the same on every node (-: the input); else loopback only"),
      number("cluster.heartbeat_ms", &s.cluster.heartbeat_ms, 10, 60'000,
             "a node that misses three is dead"),
      setting{"cluster.cache_bytes",
              &s.cluster.cache_bytes,
              "of the head's models and checkpoints that a node keeps, under "
              "$TANDEM_HOME/cache/models; above it the oldest go",
              0,
              0,
              {},
              true},
      plain("store.url", &s.store.url,
            "of files, jobs and events: \"sqlite:FOLDER\" or \"postgresql://USER@HOST/DATABASE\"; "
            "empty: $TANDEM_HOME/store"),
      choice("log.level", &s.log.level,
             {"trace", "debug", "info", "warn", "warning", "error", "critical", "off"},
             "least level that is written"),
      plain("log.file", &s.log.file, "empty: stderr"),
  };
}

std::span<const std::string_view> sections_not_built() {
  static constexpr std::array<std::string_view, 1> names = {"trace"};
  return names;
}

std::optional<std::string_view> why_not_built(std::string_view key) {
  if (key == "server.admin_port") {
    return "not built yet: the admin plane answers on server.port; remove the key";
  }
  if (key == "train.checkpoint_every") {
    return "not built yet: a job's own checkpoint_every_steps says it; remove the key";
  }
  return std::nullopt;
}

std::string_view expected_kind(const setting& entry) {
  static constexpr std::array<std::string_view, 6> kinds = {
      "text in quotes", "a whole number", "a whole number",
      "a number",       "true or false",  "a list of texts, [\"a\", \"b\"]"};
  return kinds[entry.field.index()];
}

result<void> set_value(const setting& entry, const setting_value& value) {
  if (auto* to_bool = std::get_if<bool*>(&entry.field)) {
    const bool* given = std::get_if<bool>(&value);
    if (!given) return refuse(entry, fmt::format("expected {}", expected_kind(entry)));
    **to_bool = *given;
    return {};
  }
  if (const auto* url = std::get_if<std::string>(&value); url && entry.key == "store.url") {
    if (const auto folder = store_folder({*url}); !folder) return folder.error();
  }
  if (const auto* bytes = std::get_if<std::string>(&value);
      bytes && *bytes == "auto" && entry.key == "cluster.cache_bytes") {
    return refuse(entry, parse_bytes(*bytes).error().detail);
  }
  if (const auto* slots = std::get_if<std::int64_t>(&value);
      slots && entry.key == "train.slots" && (*slots & (*slots - 1)) != 0) {
    return refuse(entry, fmt::format("{} is no power of two: give 1, 2, 4, 8, …", *slots));
  }
  if (std::holds_alternative<std::string*>(entry.field)) return set_text(entry, value);
  if (std::holds_alternative<std::vector<std::string>*>(entry.field)) return set_list(entry, value);
  return set_number(entry, value);
}

result<setting_value> value_from_text(const setting& entry, std::string_view text) {
  const auto wrong = [&] {
    return refuse(entry, fmt::format("expected {}, got \"{}\"", expected_kind(entry), text));
  };
  if (std::holds_alternative<std::string*>(entry.field)) return setting_value(std::string(text));
  if (std::holds_alternative<std::vector<std::string>*>(entry.field)) {
    return setting_value(list_from(text));
  }
  if (std::holds_alternative<bool*>(entry.field)) {
    if (text == "true" || text == "1") return setting_value(true);
    if (text == "false" || text == "0") return setting_value(false);
    return wrong();
  }
  const char* end = text.data() + text.size();
  std::int64_t whole = 0;
  if (const auto read = std::from_chars(text.data(), end, whole);
      read.ec == std::errc{} && read.ptr == end) {
    return setting_value(whole);
  }
  if (!std::holds_alternative<double*>(entry.field)) return wrong();
  double real = 0;
  const auto read = std::from_chars(text.data(), end, real);
  if (read.ec != std::errc{} || read.ptr != end) return wrong();
  return setting_value(real);
}

setting_value value_of(const setting& entry) {
  return std::visit(
      [](auto* field) -> setting_value {
        using kind = std::remove_pointer_t<decltype(field)>;
        if constexpr (std::is_same_v<kind, int>) {
          return std::int64_t{*field};
        } else {
          return *field;
        }
      },
      entry.field);
}

}  // namespace tandem
