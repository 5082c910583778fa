// What `tandem train` was asked for, and the body of POST /v1/fine_tuning/jobs made from it. Only
// what was given is sent: the server knows the defaults, and refuses what cannot be.
#pragma once

#include "gateway/command/invocation.hpp"
#include "runtime/text/value.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tandem::gateway::command {

struct train_options {
  std::string data;
  std::string validation;
  std::string model;
  std::string suffix;
  std::optional<std::int64_t> seed;
  bool detach = false;
  // "auto" or a number; as written, empty when not given.
  std::string epochs;
  std::string batch_size;
  std::string learning_rate_multiplier;
  // Our own, under "tandem".
  std::string method;
  std::optional<double> learning_rate;
  std::optional<std::int64_t> rank;
  std::optional<double> alpha;
  std::vector<std::string> targets;
  std::optional<std::int64_t> sequence_length;
  std::optional<std::int64_t> slots;
  std::optional<std::int64_t> micro_batch;
  std::string schedule;
  std::optional<std::int64_t> warmup_steps;
  std::optional<double> weight_decay;
  std::optional<double> clip_norm;
  bool no_packing = false;
  bool no_shuffle = false;
  bool recompute = false;
  std::optional<std::int64_t> publish_every;
  std::optional<std::int64_t> checkpoint_every;
  std::string serve_format;
  std::string precision;
  std::string long_examples;
};

std::shared_ptr<train_options> add_train_options(CLI::App& command);

text::value job_request(const train_options& options, const std::string& model,
                        const std::string& training_file, const std::string& validation_file);

}  // namespace tandem::gateway::command
