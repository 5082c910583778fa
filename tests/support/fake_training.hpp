// Training without arithmetic: parameters move by a fixed function of every token that was read, so
// a row that is left out, read twice or read in another step changes what comes out. Work has a
// home, as in runtime/train/order.hpp: whoever does it works in the home's memory.
#pragma once

#include "runtime/serve/device.hpp"
#include "runtime/train/checkpoint.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace tandem::test {

struct fake_training_script {
  int pieces = 2;
  std::chrono::milliseconds piece_time{0};
  std::function<void()> between_pieces;
  std::function<void(const train::order&, int rank)> watch;  // hears of every order that is done
  int dies_at_order = 0;           // throws in this order of the device; 0: never
  std::int64_t not_finite_at = 0;  // the step whose norm is not a number; 0: none
  int busy_publishes = 0;          // so many are refused as if streams held both halves
  bool has_room_for_copies = true;
  error open_refusal{errc::internal, "", ""};
  std::function<bool()> opens_when;  // opening pauses until then; empty: at once
};

class fake_trainer_memory final : public train::trainer_memory {
 public:
  static constexpr std::size_t tensors = 4;
  static constexpr std::size_t floats_each = 8;
  static constexpr std::size_t count = tensors * floats_each;

  train::state_view view() const override {
    return {parameters,
            {first.data() + begin, end - begin},
            {second.data() + begin, end - begin},
            begin,
            end};
  }
  const std::vector<train::parameter>& layout() const override { return layout_; }

  result<void> expect(train::order_kind, int) override {
    for (auto& [at, mirror] : mirrors) {  // what nobody brings must not do any good
      for (auto* const arena : {&mirror->parameters, &mirror->gradient, &mirror->first,
                                &mirror->second, &mirror->reduced})
        std::fill(arena->begin(), arena->end(), -1e6F);
    }
    return {};
  }
  result<void> read(const train::memory_range& what, take_room room) const override {
    const auto& of = what.rank == rank ? *this : *mirrors.at(what.rank);
    const auto bytes =
        what.arena == train::arena_kind::progress
            ? std::span<const std::byte>(nothing_)
            : std::as_bytes(std::span(of.arena(what.arena)).subspan(what.first, what.count));
    std::copy(bytes.begin(), bytes.end(), room(bytes.size()));
    return {};
  }
  result<void> write(const train::memory_range& what, std::span<const std::byte> bytes) override {
    auto& to = what.rank == rank ? *this : *mirrors.at(what.rank);
    if (what.arena == train::arena_kind::progress) return {};
    if (bytes.size() != what.count * sizeof(float))
      return error{errc::bad_request, "another count than the range's", ""};
    moved += what.count;
    auto& arena = const_cast<std::vector<float>&>(to.arena(what.arena));
    std::memcpy(arena.data() + what.first, bytes.data(), bytes.size());
    return {};
  }

  int rank = 0;
  std::map<int, std::shared_ptr<fake_trainer_memory>> mirrors;
  std::size_t moved = 0;  // floats that couriers wrote here
  std::vector<float> parameters = std::vector<float>(count, 1.0F);
  std::vector<float> gradient = std::vector<float>(count, 0.0F);
  std::vector<float> first = std::vector<float>(count, 0.0F);
  std::vector<float> second = std::vector<float>(count, 0.0F);
  std::vector<float> reduced = std::vector<float>(count, 0.0F);
  // The copy of another's shard; what nobody brings must not do any good.
  std::vector<float> kept_parameters = std::vector<float>(count, -1e6F);
  std::vector<float> kept_first = std::vector<float>(count, -1e6F);
  std::vector<float> kept_second = std::vector<float>(count, -1e6F);
  std::size_t begin = 0;
  std::size_t end = count;

 private:
  const std::vector<float>& arena(train::arena_kind kind) const {
    switch (kind) {
      case train::arena_kind::parameters:
        return parameters;
      case train::arena_kind::gradients:
        return gradient;
      case train::arena_kind::summed:
        return reduced;
      case train::arena_kind::first_moments:
        return first;
      case train::arena_kind::second_moments:
        return second;
      case train::arena_kind::kept_parameters:
        return kept_parameters;
      case train::arena_kind::kept_first_moments:
        return kept_first;
      case train::arena_kind::kept_second_moments:
        return kept_second;
      default:
        throw std::logic_error("an arena the fake does not have");
    }
  }
  std::vector<std::byte> nothing_ =
      std::vector<std::byte>(train::element_bytes(train::arena_kind::progress));
  static std::vector<train::parameter> make_layout() {
    std::vector<train::parameter> all;
    for (std::size_t i = 0; i < tensors; ++i)
      all.push_back({"tensor." + std::to_string(i), i * floats_each, floats_each, true});
    return all;
  }
  std::vector<train::parameter> layout_ = make_layout();
};

// The training half of a fake device.
class fake_training_device : public serve::device {
 public:
  fake_training_script training;

  result<train::opened> open_training(const train::open_order& order,
                                      const pause_point& pause) override {
    while (training.opens_when && !training.opens_when()) pause();
    if (!training.open_refusal.detail.empty()) return training.open_refusal;
    memory_ = std::make_shared<fake_trainer_memory>();
    rank_ = order.device_rank;
    devices_ = order.device_count;
    const auto share = fake_trainer_memory::count / static_cast<std::size_t>(devices_);
    memory_->begin = share * static_cast<std::size_t>(rank_);
    memory_->end = memory_->begin + share;
    group_ = {memory_};
    memory_->rank = rank_;
    train::opened facts;
    facts.layout.parameters = memory_->layout();
    for (int rank = 0; rank < devices_; ++rank) {
      const auto begin = share * static_cast<std::size_t>(rank);
      const auto each = fake_trainer_memory::tensors / static_cast<std::size_t>(devices_);
      const auto tensor = each * static_cast<std::size_t>(rank);
      facts.layout.shards.push_back({begin, begin + share, tensor, tensor + each});
      if (!order.apart || rank == rank_) continue;
      auto& mirror = memory_->mirrors[rank];
      mirror = std::make_shared<fake_trainer_memory>();
      mirror->begin = begin;
      mirror->end = begin + share;
    }
    facts.trainable_parameters = fake_trainer_memory::count;
    facts.shared = memory_;
    facts.keeps = training.has_room_for_copies ? order.keeps : -1;
    if (order.checkpoint.empty()) return facts;
    const auto read = train::read_checkpoint_facts(order.checkpoint);
    if (!read) return read.error();
    facts.step = read->step;
    if (auto done = train::read_parameters(order.checkpoint, memory_->parameters); !done)
      return done.error();
    if (auto done = train::read_moments(
            order.checkpoint, memory_->begin,
            {memory_->first.data() + memory_->begin, memory_->end - memory_->begin},
            {memory_->second.data() + memory_->begin, memory_->end - memory_->begin});
        !done)
      return done.error();
    return facts;
  }

  void join_training(const std::string&,
                     std::vector<std::shared_ptr<train::trainer_memory>> group) override {
    group_.clear();
    for (int rank = 0; rank < std::ssize(group); ++rank) {
      auto& one = group[static_cast<std::size_t>(rank)];
      if (rank == rank_)
        group_.push_back(memory_);
      else if (one == nullptr)
        group_.push_back(memory_->mirrors.at(rank));
      else
        group_.push_back(std::dynamic_pointer_cast<fake_trainer_memory>(std::move(one)));
    }
  }

  result<void> begin_training(train::order what) override {
    if (!memory_) return error{errc::conflict, "no job is open", ""};
    order_ = std::move(what);
    if (static_cast<std::size_t>(order_.home) >= group_.size())
      return error{errc::conflict, "no such home", ""};
    piece_ = 0;
    return {};
  }

  bool advance_training() override {
    if (training.between_pieces) training.between_pieces();
    if (training.dies_at_order != 0 && orders_ + 1 == training.dies_at_order)
      throw std::runtime_error("the fake device fell off the bus while it trained");
    piece_took_ = training.piece_time;
    return ++piece_ < training.pieces;
  }
  std::chrono::nanoseconds piece_time() const override {
    return std::exchange(piece_took_, std::chrono::nanoseconds(0));
  }

  result<train::outcome> finish_training() override {
    ++orders_;
    if (training.watch) training.watch(order_, rank_);
    train::outcome done;
    done.kind = order_.kind;
    done.step = order_.step;
    done.home = order_.home;
    auto& home = *group_[static_cast<std::size_t>(order_.home)];
    switch (order_.kind) {
      case train::order_kind::accumulate:
      case train::order_kind::evaluate:
        accumulate(home, done);
        break;
      case train::order_kind::reduce:
        // The sum of what every home has, in rank order, of home's shard.
        for (std::size_t i = home.begin; i < home.end; ++i) {
          if (order_.round == 0) home.reduced[i] = 0.0F;
          for (const auto& one : group_) home.reduced[i] += one->gradient[i];
        }
        break;
      case train::order_kind::norm:
        done.squares.assign(1, order_.step == training.not_finite_at
                                   ? std::numeric_limits<double>::quiet_NaN()
                                   : 1e-6);
        break;
      case train::order_kind::update:
        update(home);
        break;
      case train::order_kind::gather:
        for (const auto& one : group_)
          for (std::size_t i = one->begin; i < one->end; ++i)
            home.parameters[i] = one->parameters[i];
        break;
      case train::order_kind::publish:
        if (training.busy_publishes > 0) {
          --training.busy_publishes;
          return error{errc::conflict, "both halves are in use", ""};
        }
        published.push_back(memory_->parameters);
        done.adapter = std::make_shared<model::adapter>();
        break;
    }
    return done;
  }

  void drop_training() override { piece_ = 0; }
  void close_training(const std::string&) override { memory_.reset(); }

  std::vector<std::vector<float>> published;

 private:
  // Whole numbers small enough that float sums are exact in any order.
  void accumulate(fake_trainer_memory& home, train::outcome& done) {
    const bool learns = order_.kind == train::order_kind::accumulate;
    if (learns && (order_.round == 0 || devices_ > 1))
      std::fill(home.gradient.begin(), home.gradient.end(), 0.0F);
    for (const auto& slot : order_.slots) {
      train::slot_loss loss;
      for (std::size_t t = 0; t < slot.ids.size(); ++t) {
        if (learns)
          for (std::size_t i = 0; i < fake_trainer_memory::count; ++i)
            home.gradient[i] += static_cast<float>((slot.ids[t] * 7 + static_cast<int>(i)) % 13);
        if (slot.targets[t] < 0) continue;
        ++loss.counted;
        loss.loss_sum += 1.0 / static_cast<double>(order_.step);
      }
      loss.correct = loss.counted / 2;
      done.losses.push_back(loss);
    }
  }

  void update(fake_trainer_memory& home) {
    const auto& gradient = devices_ > 1 ? home.reduced : home.gradient;
    for (std::size_t i = home.begin; i < home.end; ++i) {
      home.first[i] = 0.5F * home.first[i] + gradient[i];
      home.second[i] += 1.0F;
      home.parameters[i] -=
          static_cast<float>(order_.learning_rate) * home.first[i] * home.second[i];
    }
  }

  std::shared_ptr<fake_trainer_memory> memory_;
  std::vector<std::shared_ptr<fake_trainer_memory>> group_;
  train::order order_;
  int rank_ = 0;
  int devices_ = 1;
  int piece_ = 0;
  mutable std::chrono::nanoseconds piece_took_{0};
  int orders_ = 0;
};

}  // namespace tandem::test
