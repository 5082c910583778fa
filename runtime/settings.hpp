// Settings: every one, its default and its meaning. Precedence: command line, environment
// (TANDEM_SECTION_KEY), file, default. Unknown keys and wrong types are refused with file, line and
// the nearest known key.
#pragma once

#include "runtime/result.hpp"

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

struct server_settings {
  std::string host = "127.0.0.1";
  int port = 8000;
  std::string gateways = "head";  // "all": every node that joins has an HTTP address, too
  std::string api_keys_file;      // one key a line; empty: no key needed
  std::string admin_key_file;     // required to listen beyond loopback
  std::string tls_cert;           // PEM, with tls_key
  std::string tls_key;
  std::vector<std::string> cors_origins = {"*"};
  int threads = 1;  // that speak HTTP
  std::int64_t max_body_bytes = 8 << 20;
  std::int64_t max_file_bytes = 512 << 20;  // of one uploaded file, which goes to disk as it comes
  std::int64_t max_header_bytes = 32 << 10;
  int max_connections = 4096;
  int header_timeout_ms = 10'000;  // from first byte to the end of the header
  int body_timeout_ms = 30'000;
  int idle_timeout_ms = 75'000;      // between two requests of a connection
  int write_timeout_ms = 60'000;     // a reader that takes nothing for so long is cut off
  int request_timeout_ms = 600'000;  // a request's deadline
  int heartbeat_ms = 5'000;          // silence before a comment is sent
  int drain_timeout_ms = 30'000;     // grace for running requests on SIGTERM
};

struct model_settings {
  std::string path;  // a .gguf file, a Hugging Face folder, or a name under models
  std::string name;  // what clients call it; empty: from the file
  std::string format = "native";
  std::int64_t context_length = 0;  // 0: the model's own, at most what kv_memory holds
  int max_sequences = 64;
  std::string kv_memory = "auto";  // "512MiB"; auto: a share of memory_fraction
  std::string kv_format = "auto";  // f16 | f32; auto: f32 for f32 weights, else f16
  std::string chat_template;       // a .jinja file instead of the model's own
  int tensor_parallel = 1;         // devices that hold it together, in the order of devices.list
};

struct devices_settings {
  std::vector<std::string> list = {"auto"};
  int threads_per_device = 0;    // 0: every core of the device's range
  double memory_fraction = 0.5;  // of the machine's memory, over all CPU devices
  std::string isolation =
      "process";  // each device a worker process of its own; "none": in this one
};

struct serve_settings {
  int max_batch_tokens = 512;
  int prefill_chunk_tokens = 128;
  int max_queued = 1024;
  bool prefix_cache = true;
  int ttft_target_ms = 500;  // time to first token, queue included
  int itl_target_ms = 100;   // between two tokens of a stream
};

struct share_settings {
  std::string policy = "latency_first";  // who gets a device (runtime/lease/policy.hpp)
  int min_serve_devices = 1;             // serve or share at any time
  int max_train_devices = 0;             // train or share at most; 0: all
  int cooldown_ms = 2000;                // of low load before a device goes to training
};

struct train_settings {
  int slots = 4;          // logical slots a step's rows are dealt to, of jobs that say nothing
  std::string directory;  // of checkpoints and results; empty: $TANDEM_HOME/jobs
};

// How processes and machines speak to each other.
struct cluster_settings {
  std::string listen;       // "HOST:PORT" that others join at; empty: nobody can
  std::string advertise;    // what others dial instead, when `listen` is every interface
  std::string secret_file;  // the same on every node; without it nodes meet on loopback only
  int heartbeat_ms = 1000;  // three missed ones: a node is dead
  std::string cache_bytes = "20GB";  // of the head's models and checkpoints, kept on a node
};

struct store_settings {
  std::string url;  // "sqlite:FOLDER" or "postgresql://…"; empty: $TANDEM_HOME/store
};

struct log_settings {
  std::string level = "info";
  std::string file;  // empty: stderr
};

struct settings {
  server_settings server;
  model_settings model;
  devices_settings devices;
  serve_settings serve;
  train_settings train;
  share_settings share;
  cluster_settings cluster;
  store_settings store;
  log_settings log;

  // Where each setting came from, by "section.key": "default", "file PATH:LINE",
  // "environment TANDEM_SECTION_KEY", "command line".
  std::map<std::string, std::string, std::less<>> origins;
};

// $TANDEM_HOME, else ~/.tandem.
std::filesystem::path tandem_home();

// The folder that store.url means; of a PostgreSQL database, the one that holds its files.
result<std::filesystem::path> store_folder(const store_settings& s);
// train.directory, or where jobs are kept without it.
std::filesystem::path jobs_folder(const train_settings& s);

// `overrides` are the command line's: {"server.port", "8001"}. `environment` is given in full so
// that tests need none; pass `environ`-like pairs. `file` may be empty.
result<settings> load_settings(const std::filesystem::path& file,
                               const std::vector<std::pair<std::string, std::string>>& environment,
                               const std::vector<std::pair<std::string, std::string>>& overrides);

// Every setting as TOML, each with its origin as a comment.
std::string show_settings(const settings& s);
// The same as JSON: [{"key", "value", "origin", "meaning"}].
std::string show_settings_json(const settings& s);

// "512MiB", "2GB", "1048576" to bytes.
result<std::int64_t> parse_bytes(std::string_view text);

}  // namespace tandem
