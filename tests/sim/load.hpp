// What is asked of a simulated cluster: requests, jobs one after the other, and orders by hand.
#pragma once

#include "tests/sim/cluster.hpp"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tandem::sim {

inline constexpr int answer_tokens = 12;

class load {
 public:
  struct asked {
    std::vector<serve::token_id> prompt;
    std::vector<serve::token_id> tokens;
    bool withdrawn = false;
    int ends = 0;
    std::optional<error> failure;
  };

  load(std::uint64_t seed, const knobs& how, timeline& time, cluster& on,
       std::shared_ptr<memory_store> store);
  ~load();
  load(const load&) = delete;
  load& operator=(const load&) = delete;

  void begin();
  // No more comes, and every device is given back to the policy.
  void end();
  bool all_ended() const;

  const std::map<serve::request_id, asked>& requests() const { return requests_; }
  const std::vector<std::string>& jobs() const { return jobs_; }

 private:
  void start_job();
  void hear_job(const std::string& job);
  void ask_later();
  void ask();
  void hear(serve::request_id id, const serve::generation_delta& delta);
  void order_later();

  const knobs& how_;
  timeline& time_;
  cluster& cluster_;
  std::shared_ptr<memory_store> store_;
  random_stream load_;
  random_stream orders_;
  std::map<serve::request_id, asked> requests_;
  std::vector<std::string> jobs_;
  bool calm_ = false;
};

// "sim:07"
std::string some_device(random_stream& from, const knobs& how);

}  // namespace tandem::sim
