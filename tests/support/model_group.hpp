// A model that several ranks of this process hold together, each with a runner on its own thread.
#pragma once

#include "kernels/local_collective.hpp"
#include "tests/support/model_runner.hpp"

#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace tandem::test {

class model_group {
 public:
  model_group(const std::filesystem::path& path, int ranks, runner_options options = {}) {
    std::vector<kernels::backend*> each;
    for (int rank = 0; rank < ranks; ++rank) {
      devices_.push_back(backend_for(options));
      each.push_back(devices_.back().get());
    }
    group_ = std::make_unique<kernels::local_group>(each);
    for (int rank = 0; rank < ranks; ++rank) {
      options.device = each[static_cast<std::size_t>(rank)];
      options.place = {rank, ranks};
      options.ranks = &group_->of(rank);
      ranks_.push_back(std::make_unique<model_runner>(path, options));
    }
  }

  // What rank 0 gets for these; every rank must get the same.
  logits_rows step(const std::function<std::vector<fed>(int rank)>& parts) {
    std::vector<logits_rows> found(ranks_.size());
    std::vector<std::thread> threads;
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank)
      threads.emplace_back([&, rank] {
        devices_[rank]->attach_calling_thread();
        found[rank] = ranks_[rank]->step(parts(static_cast<int>(rank)));
      });
    for (auto& thread : threads) thread.join();
    for (const auto& one : found) CHECK(one == found.front());
    return found.front();
  }
  logits_rows step(const std::vector<fed>& parts) {
    return step([&](int) { return parts; });
  }
  logits_rows read(std::vector<std::int32_t> ids, int sequence = 0) {
    return step({fed{sequence, std::move(ids)}});
  }

  model_runner& rank(int rank) { return *ranks_[static_cast<std::size_t>(rank)]; }

 private:
  std::vector<std::unique_ptr<kernels::backend>> devices_;
  std::unique_ptr<kernels::local_group> group_;
  std::vector<std::unique_ptr<model_runner>> ranks_;
};

}  // namespace tandem::test
