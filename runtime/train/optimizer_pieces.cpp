#include "runtime/train/optimizer_pieces.hpp"

#include "runtime/train/reduce_group.hpp"

#include <algorithm>

namespace tandem::train {

namespace {

// Runs of the shard's tensors that one piece takes: small ones together, large ones in parts.
struct part {
  std::size_t tensor = 0;  // of the layout
  std::size_t begin = 0;   // within the arena
  std::size_t count = 0;
};

std::vector<std::vector<part>> pieces_of(const device_memory& mine, std::size_t piece_floats) {
  std::vector<std::vector<part>> pieces;
  std::size_t filled = piece_floats;
  for (std::size_t t = mine.own.first_tensor; t < mine.own.last_tensor; ++t) {
    const auto& tensor = mine.group.parameters[t];
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

}  // namespace tandem::train
