#include "runtime/train/optimizer_pieces.hpp"

#include "runtime/train/reduce_group.hpp"

#include <algorithm>
#include <memory>
#include <utility>

namespace tandem::train {

namespace {

// Runs of the shard's tensors that one piece takes: small ones together, large ones in parts.
struct part {
  std::size_t tensor = 0;  // of the layout
  std::size_t begin = 0;   // within the arena
  std::size_t count = 0;
};

std::vector<std::vector<part>> pieces_of(const std::vector<parameter>& layout,
                                         std::size_t first_tensor, std::size_t last_tensor,
                                         std::size_t piece_floats) {
  std::vector<std::vector<part>> pieces;
  std::size_t filled = piece_floats;
  for (std::size_t t = first_tensor; t < last_tensor; ++t) {
    const auto& tensor = layout[t];
    for (std::size_t at = 0; at < tensor.floats; at += piece_floats) {
      const auto count = std::min(piece_floats, tensor.floats - at);
      if (filled + count > piece_floats) {
        pieces.emplace_back();
        filled = 0;
      }
      pieces.back().push_back({t, tensor.first_float + at, count});
      filled += count;
    }
  }
  return pieces;
}

std::vector<std::vector<part>> pieces_of(const device_memory& mine, std::size_t piece_floats) {
  return pieces_of(mine.group.parameters, mine.own.first_tensor, mine.own.last_tensor,
                   piece_floats);
}

}  // namespace

void plan_norm(kernels::backend& device, const device_memory& mine, std::vector<double>& squares,
               std::vector<piece>& pieces) {
  squares.assign(mine.own.last_tensor - mine.own.first_tensor, 0.0);
  for (auto& parts : pieces_of(mine, piece_floats_of(device)))
    pieces.emplace_back([&, parts = std::move(parts)] {
      std::vector<std::span<const float>> arrays;
      for (const auto& p : parts) arrays.push_back(mine.shard_gradient().part(p.begin, p.count));
      std::vector<double> sums(arrays.size());
      device.sums_of_squares(arrays, sums);
      for (std::size_t i = 0; i < parts.size(); ++i)
        squares[parts[i].tensor - mine.own.first_tensor] += sums[i];
    });
}

void plan_update(kernels::backend& device, device_memory& mine, const kernels::adamw_step& how,
                 std::vector<piece>& pieces) {
  for (auto& parts : pieces_of(mine, piece_floats_of(device)))
    pieces.emplace_back([&device, &mine, how, parts = std::move(parts)] {
      for (const auto& p : parts) {
        auto step = how;
        if (!mine.group.parameters[p.tensor].matrix) step.weight_decay = 0.0F;
        device.adamw(step, mine.shard_gradient().part(p.begin, p.count).data(),
                     static_cast<std::int64_t>(p.count),
                     mine.shard_parameters.part(p.begin, p.count).data(),
                     mine.first_moments.part(p.begin, p.count).data(),
                     mine.second_moments.part(p.begin, p.count).data());
      }
    });
}

void append_in(std::size_t count, std::vector<piece> more, std::vector<piece>& pieces) {
  const auto all = std::make_shared<const std::vector<piece>>(std::move(more));
  for (std::size_t i = 0; i < count; ++i)
    pieces.emplace_back([=] {
      for (auto at = all->size() * i / count; at < all->size() * (i + 1) / count; ++at)
        (*all)[at]();
    });
}

std::size_t room_for_norms(const kernels::backend& device, const rank_layout& layout) {
  return std::min(piece_floats_of(device), layout.floats());
}

void plan_norm(kernels::backend& device, const device_memory& mine, const rank_layout& layout,
               const rank_exchange& ranks, std::span<float> room, std::vector<double>& squares,
               std::vector<piece>& pieces) {
  squares.assign(layout.whole.size(), 0.0);
  for (auto& parts :
       pieces_of(layout.whole, 0, layout.whole.size(), room_for_norms(device, layout)))
    pieces.emplace_back([&, room, parts = std::move(parts)] {
      std::vector<std::span<const float>> arrays;
      std::size_t filled = 0;
      for (const auto& p : parts) {
        const auto into = room.subspan(filled, p.count);
        filled += p.count;
        ranks.whole_floats(layout, p.begin, p.count, mine.gradients.floats.data(), into.data());
        arrays.push_back(into);
      }
      std::vector<double> sums(arrays.size());
      device.sums_of_squares(arrays, sums);
      for (std::size_t i = 0; i < parts.size(); ++i) squares[parts[i].tensor] += sums[i];
    });
}

void plan_update(kernels::backend& device, device_memory& mine, const rank_layout& layout,
                 const kernels::adamw_step& how, std::vector<piece>& pieces) {
  std::vector<piece> own;
  plan_update(device, mine, how, own);
  append_in(layout.floats() / piece_floats_of(device) + 1, std::move(own), pieces);
}

}  // namespace tandem::train
