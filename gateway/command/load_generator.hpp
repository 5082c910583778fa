// Load for a server that speaks OpenAI's completions: so many streams at once, each asking again as
// soon as it was answered, prompts of random token ids that share nothing.
#pragma once

#include "gateway/command/http_client.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace tandem::gateway::command {

struct load_options {
  std::string address;
  std::string api_key;
  std::string model;
  int streams = 4;
  int prompt_tokens = 128;
  int max_tokens = 64;
  int requests = 0;       // in all; 0: as many as fit into `seconds`
  double seconds = 10.0;  // no request begins later
  std::int64_t vocabulary_size = 0;
  std::uint64_t seed = 1;
  std::function<bool()> stopped;
};

struct load_report {
  std::int64_t answered = 0;
  std::int64_t failed = 0;
  std::string first_failure;
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;
  double wall_s = 0;               // from the first question to the last answer
  std::vector<double> first_ms;    // time to first token, one a request
  std::vector<double> between_ms;  // time between two events with text
  std::vector<double> whole_ms;    // one a request
};

load_report run_load(const load_options& options);

// Nearest rank: the least value that at least this share of all values does not exceed; 0 of none.
double quantile(std::vector<double> values, double share);

}  // namespace tandem::gateway::command
