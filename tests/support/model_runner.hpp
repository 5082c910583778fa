// A loaded model that reads tokens of a few sequences and shows every row's logits.
#pragma once

#include "kernels/cpu/cpu_backend.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "runtime/memory/ledger.hpp"
#include "runtime/model/forward.hpp"
#include "runtime/model/weights.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

namespace tandem::test {

// Tokens of one sequence, at the positions after those it has read.
struct fed {
  int sequence = 0;
  std::vector<std::int32_t> ids;
  const model::adapter* with = nullptr;  // those without come first
};
using logits_rows = std::vector<std::vector<float>>;

struct runner_options {
  model::load_format format = model::load_format::f32;
  kernels::cpu::instruction_set set = kernels::cpu::best_instruction_set();
  kernels::kv_format kv = kernels::kv_format::f32;
  std::int64_t rows = 128;
  std::int64_t context = 256;
  int sequences = 4;
  int gpu = -1;  // on this GPU instead of the CPU
  // One of several ranks (model_group.hpp): somebody else's device, and where they meet.
  kernels::backend* device = nullptr;
  model::tensor_rank place = {};
  kernels::collective* ranks = nullptr;
};

inline std::unique_ptr<kernels::backend> backend_for(const runner_options& options) {
  return options.gpu < 0 ? kernels::cpu::make_backend({.cores = {}, .set = options.set})
                         : kernels::cuda::make_backend({.gpu = options.gpu, .host_cores = {}});
}

class model_runner {
 public:
  model_runner(const std::filesystem::path& path, const runner_options& options = {})
      : options_(options),
        own_device_(options.device ? nullptr : backend_for(options)),
        device_(options.device ? options.device : own_device_.get()),
        book_(std::make_unique<memory::ledger>(
            std::uint64_t{8} << 30,
            options.gpu < 0 ? memory::host_memory() : memory::gpu_memory(options.gpu))) {
    device_->attach_calling_thread();
    const auto source = model::model_source::open(path);
    if (!source) FAIL(source.error().detail);
    auto loaded = (*source)->load(*device_, *book_, options.format, {}, options.place);
    if (!loaded) FAIL(loaded.error().detail);
    blocks_each_ =
        (options.context + kernels::kv_block_positions - 1) / kernels::kv_block_positions;
    auto pass = model::forward_pass::create(*device_, *book_, *loaded,
                                            {.rows = options.rows,
                                             .logit_rows = options.rows,
                                             .context_positions = options.context,
                                             .kv_blocks = blocks_each_ * options.sequences,
                                             .kv = options.kv},
                                            options.ranks);
    if (!pass) FAIL(pass.error().detail);
    pass_ = std::move(*pass);
    for (int s = 0; s < options.sequences; ++s) {
      // Blocks of the sequences interleave, as they do in life.
      std::vector<std::int32_t> blocks;
      for (std::int64_t b = 0; b < blocks_each_; ++b)
        blocks.push_back(static_cast<std::int32_t>(b * options.sequences + s));
      blocks_.push_back(std::move(blocks));
    }
    lengths_.resize(static_cast<std::size_t>(options.sequences));
  }

  // One step over all of these; the logits of every row, in order. `over`: other whole weights.
  logits_rows step(const std::vector<fed>& parts, const model::weights* over = nullptr) {
    std::vector<std::int32_t> ids;
    std::vector<std::int32_t> positions;
    std::vector<kernels::attention_span> spans;
    std::vector<model::row_group> groups;
    for (const auto& part : parts) {
      auto& length = lengths_[static_cast<std::size_t>(part.sequence)];
      spans.push_back({static_cast<std::int32_t>(ids.size()),
                       static_cast<std::int32_t>(part.ids.size()), length,
                       blocks_[static_cast<std::size_t>(part.sequence)].data()});
      groups.push_back({static_cast<std::int32_t>(ids.size()),
                        static_cast<std::int32_t>(part.ids.size()), part.with});
      for (const auto id : part.ids) {
        ids.push_back(id);
        positions.push_back(length++);
      }
    }
    std::vector<std::int32_t> wanted(ids.size());
    std::iota(wanted.begin(), wanted.end(), 0);
    pass_->begin({.ids_T = ids,
                  .positions_T = positions,
                  .spans = spans,
                  .logit_rows = wanted,
                  .groups = groups,
                  .over = over});
    while (pass_->advance()) {
    }
    const auto logits = device_->to_host(pass_->logits());
    logits_rows rows;
    for (std::int64_t r = 0; r < logits.rows; ++r)
      rows.emplace_back(logits.row(r), logits.row(r) + logits.columns);
    return rows;
  }
  logits_rows read(std::vector<std::int32_t> ids, int sequence = 0,
                   const model::adapter* with = nullptr) {
    return step({{sequence, std::move(ids), with}});
  }
  // Reads a long text in steps of `rows`.
  logits_rows read_long(std::span<const std::int32_t> ids) {
    logits_rows all;
    const auto most = static_cast<std::size_t>(options_.rows);
    for (std::size_t at = 0; at < ids.size(); at += most) {
      const auto part = ids.subspan(at, std::min(most, ids.size() - at));
      for (auto& row : read({part.begin(), part.end()})) all.push_back(std::move(row));
    }
    return all;
  }
  void forget() { std::fill(lengths_.begin(), lengths_.end(), 0); }

  const model::weights& model() const { return pass_->model(); }
  const kernels::backend& device() const { return *device_; }
  kernels::backend& device() { return *device_; }
  memory::ledger& book() { return *book_; }
  const model::forward_pass& pass() const { return *pass_; }

 private:
  runner_options options_;
  std::unique_ptr<kernels::backend> own_device_;
  kernels::backend* device_;
  std::unique_ptr<memory::ledger> book_;
  std::unique_ptr<model::forward_pass> pass_;
  std::int64_t blocks_each_ = 0;
  std::vector<std::vector<std::int32_t>> blocks_;
  std::vector<std::int32_t> lengths_;
};

inline std::int32_t best_of(const std::vector<float>& logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

inline double log_probability(const std::vector<float>& logits, std::int32_t id) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - most);
  return logits[static_cast<std::size_t>(id)] - most - std::log(sum);
}

template <class Numbers>
double largest_difference(const std::vector<float>& found, const Numbers& wanted) {
  REQUIRE(found.size() == wanted.size());
  double largest = 0.0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(found[i]) - wanted[i]);
    if (!(difference <= largest)) largest = difference;  // a NaN counts as the largest
  }
  return largest;
}

}  // namespace tandem::test
