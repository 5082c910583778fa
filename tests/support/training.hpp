// Training jobs run by hand: the trainers of a group, all in this thread, given the orders that a
// train coordinator would give.
#pragma once

#include "kernels/cpu/cpu_backend.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/memory/ledger.hpp"
#include "runtime/memory/memory_source.hpp"
#include "runtime/model/adapter.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/train/device_memory.hpp"
#include "runtime/train/named_tensors.hpp"
#include "runtime/train/trainer.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace tandem::test {

// One example as a slot's rows. A token counts where `counts` says so of the token predicted.
inline train::slot_rows example_rows(const std::vector<std::int32_t>& ids,
                                     const std::vector<bool>& counts) {
  train::slot_rows rows;
  rows.ids = ids;
  for (std::size_t t = 0; t < ids.size(); ++t)
    rows.targets.push_back(t + 1 < ids.size() && counts[t + 1] ? ids[t + 1] : -1);
  rows.example_rows = {static_cast<std::int32_t>(ids.size())};
  return rows;
}

inline void append(train::slot_rows& to, const train::slot_rows& more) {
  to.ids.insert(to.ids.end(), more.ids.begin(), more.ids.end());
  to.targets.insert(to.targets.end(), more.targets.begin(), more.targets.end());
  to.example_rows.insert(to.example_rows.end(), more.example_rows.begin(), more.example_rows.end());
}

inline std::int64_t counted_in(const std::vector<train::round_rows>& rounds) {
  std::int64_t counted = 0;
  for (const auto& round : rounds)
    for (const auto& slot : round.slots)
      counted += std::count_if(slot.targets.begin(), slot.targets.end(),
                               [](auto target) { return target >= 0; });
  return counted;
}

struct step_outcome {
  double loss = 0.0;
  double norm = 0.0;  // before clipping
};

class training_job {
 public:
  struct setup {
    train::job_settings settings;
    int devices = 1;
    kernels::cpu::instruction_set set = kernels::cpu::best_instruction_set();
    model::load_format base = model::load_format::f32;  // LoRA
    std::string checkpoint = {};
    std::uint64_t memory = std::uint64_t{8} << 30;
    bool apart = false;  // no device shares memory with another: `work` moves what orders need
    int gpu = -1;        // all devices are this GPU; -1: CPU devices
  };

  training_job(const std::filesystem::path& model, const setup& how)
      : settings_(how.settings), apart_(how.apart) {
    const auto source = model::model_source::open(model);
    if (!source) FAIL(source.error().detail);
    std::vector<std::shared_ptr<train::trainer_memory>> group;
    for (int rank = 0; rank < how.devices; ++rank) {
      if (how.gpu < 0)
        devices_.push_back(kernels::cpu::make_backend({.cores = {}, .set = how.set}));
      else
        devices_.push_back(kernels::cuda::make_backend({.gpu = how.gpu, .host_cores = {}}));
      auto& device = *devices_.back();
      device.attach_calling_thread();
      books_.push_back(std::make_shared<memory::ledger>(
          how.memory, how.gpu < 0 ? memory::host_memory() : memory::gpu_memory(how.gpu)));
      std::shared_ptr<const model::weights> base;
      if (settings_.method == train::training_method::lora) {
        auto loaded = (*source)->load(device, *books_.back(), how.base);
        if (!loaded) FAIL(loaded.error().detail);
        base = *loaded;
      }
      auto opened = train::trainer::open(device, books_.back(), base,
                                         {.job = "job",
                                          .model_path = model.string(),
                                          .settings = settings_,
                                          .device_count = how.devices,
                                          .device_rank = rank,
                                          .checkpoint = how.checkpoint,
                                          .apart = how.apart,
                                          .keeps = keeps(how, rank)});
      if (!opened) FAIL(opened.error().detail);
      trainers_.push_back(std::move(*opened));
      group.push_back(trainers_.back()->facts().shared);
    }
    for (std::size_t rank = 0; rank < trainers_.size(); ++rank) {
      auto seen = group;
      if (apart_) seen.assign(group.size(), nullptr);
      seen[rank] = group[rank];
      trainers_[rank]->join(std::move(seen));
    }
    step_ = trainers_.front()->facts().step;
    gathered_.assign(trainers_.size(), step_);
  }

  // Called after every piece.
  std::function<void()> between_pieces;
  // Which device carries out work of a home; empty: the home's own.
  std::function<std::size_t(std::size_t home)> executor;
  // Asked before every piece: true drops the order there, and another device begins it again.
  std::function<bool()> drops;

  // Work of this home, on whichever device is to do it. One that is behind gathers first.
  train::outcome work(std::size_t home, train::order order) {
    order.home = static_cast<int>(home);
    for (;;) {
      const auto rank = executor ? executor(home) : home;
      auto& trainer = *trainers_[rank];
      const bool reads = order.kind == train::order_kind::accumulate ||
                         order.kind == train::order_kind::evaluate ||
                         order.kind == train::order_kind::publish;
      if (reads && trainers_.size() > 1 && gathered_[rank] < step_) {
        auto gather = order_of(train::order_kind::gather);
        gather.home = static_cast<int>(rank);
        carry_out(rank, std::move(gather));
        gathered_[rank] = step_;
      }
      bring(order.kind, home, rank);
      const auto begun = trainer.begin(order);
      if (!begun) FAIL(begun.error().detail);
      bool dropped = false;
      while (trainer.busy() && !dropped) {
        trainer.advance();
        if (between_pieces) between_pieces();
        dropped = drops && drops();
      }
      if (dropped) {
        trainer.give_up();
        continue;
      }
      auto came = trainer.finish();
      if (!came) FAIL(came.error().detail);
      CHECK(came->home == static_cast<int>(home));
      take_home(order.kind, home, rank);
      return std::move(*came);
    }
  }

  // Runs one order of a device's own home to its end.
  train::outcome carry_out(std::size_t rank, train::order order) {
    auto& trainer = *trainers_[rank];
    bring(order.kind, rank, rank);
    const auto begun = trainer.begin(std::move(order));
    if (!begun) FAIL(begun.error().detail);
    while (trainer.busy()) {
      trainer.advance();
      if (between_pieces) between_pieces();
    }
    auto came = trainer.finish();
    if (!came) FAIL(came.error().detail);
    return std::move(*came);
  }

  // Forward and backward of a step; gradients lie in shard_gradient afterwards.
  std::vector<train::slot_loss> accumulate(const std::vector<train::round_rows>& rounds) {
    std::vector<train::slot_loss> losses;
    const double scale = 1.0 / static_cast<double>(counted_in(rounds));
    for (std::size_t r = 0; r < rounds.size(); ++r) {
      const auto per_device = rounds[r].slots.size() / trainers_.size();
      for (std::size_t d = 0; d < trainers_.size(); ++d) {
        const auto first = rounds[r].slots.begin() + static_cast<std::ptrdiff_t>(d * per_device);
        auto order = order_of(train::order_kind::accumulate, static_cast<int>(r));
        order.slots = {first, first + static_cast<std::ptrdiff_t>(per_device)};
        order.scale = scale;
        const auto came = work(d, std::move(order));
        losses.insert(losses.end(), came.losses.begin(), came.losses.end());
      }
      if (trainers_.size() == 1) continue;
      for (std::size_t d = 0; d < trainers_.size(); ++d)
        work(d, order_of(train::order_kind::reduce, static_cast<int>(r)));
    }
    return losses;
  }

  step_outcome step(const std::vector<train::round_rows>& rounds) {
    step_outcome out;
    const auto losses = accumulate(rounds);
    std::int64_t counted = 0;
    for (const auto& loss : losses) {
      out.loss += loss.loss_sum;
      counted += loss.counted;
    }
    out.loss /= static_cast<double>(counted);
    double squares = 0.0;
    for (std::size_t d = 0; d < trainers_.size(); ++d)
      for (const double square : work(d, order_of(train::order_kind::norm)).squares)
        squares += square;
    out.norm = std::sqrt(squares);
    // As torch.nn.utils.clip_grad_norm_.
    const double clip = settings_.clip_norm;
    const double scale = clip > 0.0 ? std::min(1.0, clip / (out.norm + 1e-6)) : 1.0;
    auto update = order_of(train::order_kind::update);
    update.learning_rate = settings_.learning_rate;
    update.gradient_scale = scale;
    for (std::size_t d = 0; d < trainers_.size(); ++d) work(d, update);
    ++step_;
    return out;
  }

  // Everyone's parameters of the step done.
  void gather_all() {
    if (trainers_.size() == 1) return;
    for (std::size_t d = 0; d < trainers_.size(); ++d) {
      auto gather = order_of(train::order_kind::gather);
      gather.home = static_cast<int>(d);
      carry_out(d, std::move(gather));
      gathered_[d] = step_;
    }
  }

  train::outcome publish(std::uint64_t version, std::size_t home = 0) {
    auto order = order_of(train::order_kind::publish);
    order.version = version;
    return work(home, std::move(order));
  }

  std::vector<train::slot_loss> evaluate(const std::vector<train::slot_rows>& slots) {
    auto order = order_of(train::order_kind::evaluate);
    order.slots = slots;
    return carry_out(0, std::move(order)).losses;
  }

  // An order about the next step.
  train::order order_of(train::order_kind kind, int round = 0) const {
    train::order order;
    order.kind = kind;
    order.job = "job";
    order.step = step_ + 1;
    order.round = round;
    return order;
  }

  train::device_memory& memory(std::size_t rank = 0) {
    return dynamic_cast<train::device_memory&>(*trainers_[rank]->facts().shared);
  }
  std::vector<float> parameters(std::size_t rank = 0) {
    gather_all();
    return on_host(memory(rank).parameters, rank);
  }
  // Numbers of that device's memory.
  std::vector<float> on_host(std::span<const float> numbers, std::size_t rank = 0) {
    std::vector<float> room;
    const auto there = memory(rank).on_host(numbers, room);
    return {there.begin(), there.end()};
  }
  kernels::backend& device(std::size_t rank = 0) { return *devices_[rank]; }
  train::trainer& trainer(std::size_t rank = 0) { return *trainers_[rank]; }
  std::shared_ptr<memory::ledger> book(std::size_t rank = 0) { return books_[rank]; }

  // Everyone's shard to its buddy, the next rank.
  void copy_shards() {
    for (int rank = 0; rank < std::ssize(trainers_); ++rank) {
      const int buddy = (rank + 1) % static_cast<int>(trainers_.size());
      auto& from = memory(static_cast<std::size_t>(rank));
      for (const auto& what : train::cut(train::copied_ranges(from.group, rank), moved_at_once))
        move(what, from, memory(static_cast<std::size_t>(buddy)), train::kept_at(what, buddy));
    }
  }

  // Bytes that were moved between devices, of ranges cut this small.
  static constexpr std::size_t moved_at_once = 1000;
  std::size_t bytes_moved() const { return bytes_moved_; }

 private:
  std::vector<bool> shares(std::size_t by) const {
    std::vector<bool> list(trainers_.size(), !apart_);
    list[by] = true;
    return list;
  }
  void bring(train::order_kind kind, std::size_t home, std::size_t by) {
    if (!apart_ || trainers_.size() == 1) return;
    if (const auto room = memory(by).expect(kind, static_cast<int>(home)); !room)
      FAIL(room.error().detail);
    for (const auto& what : train::cut(train::needs(memory(by).group, kind, static_cast<int>(home),
                                                    static_cast<int>(by), shares(by)),
                                       moved_at_once))
      move(what, memory(static_cast<std::size_t>(what.rank)), memory(by));
  }
  void take_home(train::order_kind kind, std::size_t home, std::size_t by) {
    for (const auto& what : train::cut(train::yields(memory(by).group, kind, static_cast<int>(home),
                                                     static_cast<int>(by), shares(by)),
                                       moved_at_once))
      move(what, memory(by), memory(static_cast<std::size_t>(what.rank)));
  }
  static int keeps(const setup& how, int rank) {
    if (!how.apart || how.devices == 1) return -1;
    return (rank + how.devices - 1) % how.devices;
  }
  void move(const train::memory_range& what, const train::device_memory& from,
            train::device_memory& to) {
    move(what, from, to, what);
  }
  void move(const train::memory_range& what, const train::device_memory& from,
            train::device_memory& to, const train::memory_range& there) {
    std::vector<std::byte> on_the_way;
    const auto read = from.read(what, [&](std::size_t bytes) {
      on_the_way.resize(bytes);
      return on_the_way.data();
    });
    if (!read) FAIL(read.error().detail);
    if (const auto written = to.write(there, on_the_way); !written) FAIL(written.error().detail);
    bytes_moved_ += on_the_way.size();
  }

  train::job_settings settings_;
  std::vector<std::unique_ptr<kernels::backend>> devices_;
  std::vector<std::shared_ptr<memory::ledger>> books_;
  std::vector<std::unique_ptr<train::trainer>> trainers_;
  std::vector<std::int64_t> gathered_;  // by rank: the step its parameters are of
  std::int64_t step_ = 0;
  bool apart_ = false;
  std::size_t bytes_moved_ = 0;
};

// An adapter in peft's layout, read into a job's own.
inline void read_peft_adapter(const std::filesystem::path& folder, training_job& job) {
  const auto file = formats::safetensors_file::open(folder / "adapter_model.safetensors");
  if (!file) FAIL(file.error().detail);
  const auto numbers = [&](const std::string& name) {
    std::vector<float> values;
    for (const auto& tensor : file->tensors()) {
      if (tensor.name != name) continue;
      values.resize(tensor.bytes.size() / sizeof(float));
      std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    }
    INFO(name);
    REQUIRE_FALSE(values.empty());
    return values;
  };
  const auto& adapter = *job.memory().adapter;
  model::fill_adapter(job.device(), adapter.layers, adapter.layout, [&](const auto& module) {
    return model::module_numbers{numbers("base_model.model." + module.name + ".lora_A.weight"),
                                 numbers("base_model.model." + module.name + ".lora_B.weight")};
  });
}

}  // namespace tandem::test
