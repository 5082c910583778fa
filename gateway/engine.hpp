// What the HTTP side needs of the engine, and nothing more: the gateway actor stands behind it in
// life, a fake in tests and benches.
#pragma once

#include "runtime/model/model_config.hpp"
#include "runtime/result.hpp"
#include "runtime/serve/request.hpp"
#include "runtime/text/chat_template.hpp"
#include "runtime/text/tokenizer.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tandem::gateway {

// A model that can be asked for, immutable: shared by all sessions.
struct served_model {
  std::string id;            // what clients call it
  std::string parent;        // of a version trained from a base: the base's id; else empty
  std::string job;           // that trained it
  std::string family;        // "llama"
  std::string precision;     // "q4_1"
  std::int64_t created = 0;  // Unix seconds
  std::int64_t context_length = 0;
  std::int64_t vocabulary_size = 0;
  std::int64_t parameter_count = 0;
  std::uint64_t weights_version = 1;
  std::vector<std::int32_t> eos_ids;
  model::generation_defaults defaults;
  std::shared_ptr<const text::tokenizer> tokenizer;          // null: token ids only
  std::shared_ptr<const text::chat_template> chat_template;  // null: no chat
  std::string no_chat_reason;                                // why, for the 400
  std::vector<std::string> devices;
};

// Where a request's deltas go. Called from an actor's thread, one call at a time; must not block.
class delta_sink {
 public:
  virtual ~delta_sink() = default;
  virtual void on_delta(serve::generation_delta delta) = 0;
};

enum class readiness { starting, ready, draining, failed };

class engine {
 public:
  virtual ~engine() = default;

  // Any thread. Ids are given by the engine. Every submitted request ends in exactly one delta
  // with a finish for each choice, or one with finish_reason::error for the whole request
  // (choice 0; overloaded, unavailable, timed_out ...).
  virtual serve::request_id submit(serve::generation_request request,
                                   std::shared_ptr<delta_sink> sink) = 0;
  // The client is gone or wants no more. No delta follows that was not already on its way.
  virtual void cancel(serve::request_id id) = 0;

  virtual std::vector<std::shared_ptr<const served_model>> models() const = 0;
  virtual readiness state() const = 0;
  virtual std::string state_detail() const = 0;  // why not ready, for /health
  virtual std::string metrics() const = 0;       // the engine's Prometheus text
  virtual std::string status_json() const = 0;   // /admin/cluster: devices, leases, queues
};

}  // namespace tandem::gateway
