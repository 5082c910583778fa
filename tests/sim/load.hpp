// What is asked of a simulated cluster: requests, jobs one after the other, and orders by hand.
// Clients find a head that takes them; what they asked of one that dies they ask again.
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
    const head* of = nullptr;
    bool withdrawn = false;
    bool broken = false;  // its head died first
    int ends = 0;
    std::optional<error> failure;
  };

  load(std::uint64_t seed, const knobs& how, timeline& time, cluster& on,
       std::shared_ptr<ground> ground, std::shared_ptr<const memory_database> database);

  void begin();
  // No more comes, and every device is given back to the policy.
  void end();
  bool all_ended() const;

  const std::map<serve::request_id, asked>& requests() const { return requests_; }
  std::size_t broken() const { return broken_; }  // requests that were asked again

 private:
  head* some_head();
  void start_job();
  void hear_job(const store::job_record& job);
  void ask_later();
  void ask(std::vector<serve::token_id> prompt);
  void hear(serve::request_id id, const serve::generation_delta& delta);
  void head_gone(const head& which);
  void order_later();
  void order(const actors::assign& what);

  const knobs& how_;
  timeline& time_;
  cluster& cluster_;
  std::shared_ptr<ground> on_;
  std::shared_ptr<const memory_database> database_;
  random_stream load_;
  random_stream orders_;
  std::map<serve::request_id, asked> requests_;
  std::size_t unheard_ = 0;  // clients that find no head just now
  std::size_t broken_ = 0;
  bool calm_ = false;
};

}  // namespace tandem::sim
