// The weights that serving gets of full training: two copies in the served format, written in turns
// from the float32 masters, a piece at a time. A copy that anybody still reads is never written.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/memory/ledger.hpp"
#include "runtime/model/model_config.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/pause_point.hpp"
#include "runtime/result.hpp"
#include "runtime/train/train_pass.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace tandem::train {

// Room for all weights of such a model, zeroed, every tensor at its place.
result<std::shared_ptr<model::weights>> reserve_weights(kernels::backend& device,
                                                        const std::shared_ptr<memory::ledger>& book,
                                                        const model::model_config& config,
                                                        std::string_view format, memory::owner who,
                                                        std::string_view what);

class serving_copy {
 public:
  // Of both copies together.
  static result<std::uint64_t> bytes(const kernels::backend& device,
                                     const model::model_config& config, std::string_view format);
  static result<std::unique_ptr<serving_copy>> reserve(kernels::backend& device,
                                                       const std::shared_ptr<memory::ledger>& book,
                                                       const model::model_config& config,
                                                       std::string_view format);

  // One copy at once, by the same conversion: for versions that come back out of a checkpoint.
  static result<std::shared_ptr<const model::weights>> write_one(
      kernels::backend& device, const std::shared_ptr<memory::ledger>& book,
      const model::weights& masters, std::string_view format, std::uint64_t version,
      const pause_point& pause = no_pause);

  // Appends the program that writes the idle copy from these masters on this device, which reaches
  // the copies' memory; refuses (conflict) where both are in use. All three must live until it has
  // run.
  result<void> plan(kernels::backend& device, const model::weights& masters, std::uint64_t version,
                    std::vector<piece>& pieces);
  // What the last finished program wrote.
  std::shared_ptr<const model::weights> newest() const { return copies_[written_]; }

 private:
  serving_copy() = default;
  void plan_all(kernels::backend& device, const model::weights& masters, std::uint64_t version,
                std::vector<piece>& pieces);
  static void plan_matrix(kernels::backend& device, const kernels::packed_matrix& from,
                          const kernels::packed_matrix& to, std::vector<piece>& pieces);

  std::array<std::shared_ptr<model::weights>, 2> copies_;
  std::size_t written_ = 0;
};

}  // namespace tandem::train
