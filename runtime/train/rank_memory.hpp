// What full training has on several ranks that hold a model together, as one memory: whoever writes
// a checkpoint or reads one sees the arenas of one device, so that jobs move between the two.
#pragma once

#include "runtime/pause_point.hpp"
#include "runtime/result.hpp"
#include "runtime/train/device_memory.hpp"
#include "runtime/train/rank_layout.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

namespace tandem::train {

class rank_memory final : public trainer_memory {
 public:
  rank_memory(std::vector<std::shared_ptr<trainer_memory>> ranks, rank_layout layout);

  state_view view() const override { return {{}, {}, {}, 0, layout_.floats()}; }
  const std::vector<parameter>& layout() const override { return layout_.whole; }
  // Parameters and moments. From any thread.
  result<void> read(const memory_range& what, take_room room) const override;
  result<void> write(const memory_range& what, std::span<const std::byte> bytes) override;

 private:
  trainer_memory& of(const rank_run& run) const {
    return *ranks_[static_cast<std::size_t>(run.rank)];
  }

  std::vector<std::shared_ptr<trainer_memory>> ranks_;
  rank_layout layout_;
};

// As resume_from: fills parameters and moments of all ranks; the steps they have seen.
result<std::int64_t> resume_ranks(const std::filesystem::path& checkpoint, rank_memory& memory,
                                  const pause_point& pause = no_pause);

}  // namespace tandem::train
