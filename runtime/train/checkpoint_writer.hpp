// Writes a checkpoint from numbers that come piece by piece, wherever they lie: it says which it
// wants next. Nothing is there under the checkpoint's name before all of it is; a writer that ends
// before leaves nothing behind.
#pragma once

#include "runtime/result.hpp"
#include "runtime/train/checkpoint.hpp"
#include "runtime/train/group_layout.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace tandem::train {

class checkpoint_writer {
 public:
  static constexpr std::size_t most_wanted_bytes = std::size_t{64} << 20;

  // `facts` with the layout; `shards`: who has which floats, any order, tiling all of them. Errors
  // as of write_checkpoint.
  static result<std::unique_ptr<checkpoint_writer>> begin(
      const std::filesystem::path& folder, checkpoint_facts facts,
      const std::vector<memory_range>& shards, std::size_t bytes_at_once = most_wanted_bytes);
  ~checkpoint_writer();

  std::optional<memory_range> wants() const;           // nothing: all is written
  result<void> write(std::span<const float> numbers);  // what was wanted
  // Into place, and old ones removed (see write_checkpoint). `may_commit` has the last word before
  // it is there.
  result<std::filesystem::path> finish(int kept, const std::function<bool(std::int64_t)>& keep = {},
                                       const std::function<result<void>()>& may_commit = {});

 private:
  struct state;
  explicit checkpoint_writer(std::unique_ptr<state> s);
  std::unique_ptr<state> state_;
};

// As write_checkpoint of checkpoint.hpp, with the last word before it is there.
result<std::filesystem::path> write_checkpoint(
    const std::filesystem::path& folder, const checkpoint_facts& facts,
    const std::vector<std::shared_ptr<trainer_memory>>& group, int kept,
    const std::function<bool(std::int64_t)>& keep, const std::function<result<void>()>& may_commit);

// The same numbers of a memory that is shared; `room` as in trainer_memory::on_host.
std::span<const float> saved_floats(const trainer_memory& memory, const memory_range& what,
                                    std::vector<float>& room);

}  // namespace tandem::train
