#include "runtime/train/reduce_group.hpp"

#include <algorithm>
#include <bit>

namespace tandem::train {

namespace {

// A leaf's numbers that are in a cache while the tree above them is added up.
constexpr std::size_t tree_floats = std::size_t{64} << 10;

using device_list = std::vector<std::shared_ptr<device_memory>>;

struct stretch {
  std::size_t begin = 0;
  std::size_t count = 0;
};

// The sum over devices [first, last) of one stretch: a leaf's own memory, or level `level` of
// `scratch`, with the levels below for what is in between.
const float* tree_sum(kernels::backend& device, const device_list& group, std::size_t first,
                      std::size_t last, stretch what, std::span<float> scratch, std::size_t level) {
  if (last - first == 1) return group[first]->gradients.part(what.begin, what.count).data();
  const auto middle = first + (last - first) / 2;
  float* const into = scratch.data() + level * tree_floats;
  const float* const left = tree_sum(device, group, first, middle, what, scratch, level);
  const float* const right = tree_sum(device, group, middle, last, what, scratch, level + 1);
  device.add_arrays(left, right, static_cast<std::int64_t>(what.count), into);
  return into;
}

}  // namespace

std::size_t reduce_scratch_floats(int devices) {
  if (devices == 1) return 0;
  return static_cast<std::size_t>(std::bit_width(static_cast<unsigned>(devices))) * tree_floats;
}

void plan_reduce(kernels::backend& device, device_memory& mine, const device_list& group,
                 bool first_round, const embedding_chain& chain, std::span<float> scratch,
                 std::vector<piece>& pieces) {
  const auto own = mine.own;
  const auto summed = mine.summed;
  ensure(scratch.size() >= reduce_scratch_floats(static_cast<int>(group.size())),
         "scratch of every level of the tree");
  const auto piece_floats = piece_floats_of(device);
  for (std::size_t at = own.begin; at < own.end; at += piece_floats) {
    const auto end = std::min(own.end, at + piece_floats);
    pieces.emplace_back([=, &device, &group] {
      if (first_round) device.fill_zero(std::as_writable_bytes(summed.part(at, end - at)));
      for (std::size_t begin = at; begin < end; begin += tree_floats) {
        const auto count = std::min(tree_floats, end - begin);
        float* const into = summed.part(begin, count).data();
        const float* const round =
            tree_sum(device, group, 0, group.size(), {begin, count}, scratch, 0);
        device.add_arrays(into, round, static_cast<std::int64_t>(count), into);
      }
    });
  }
  if (chain.table_VD.data == nullptr) return;
  if (chain.first_float < own.begin || chain.first_float >= own.end) return;
  auto dtable_VD = chain.table_VD;
  dtable_VD.data = reinterpret_cast<std::byte*>(summed.part(chain.first_float, 1).data());
  for (const auto& peer : group)
    pieces.emplace_back([=, &device, peer = peer.get()] {
      if (!peer->embedded_ids.empty())
        device.embed_backward(peer->embedded_gradient(), peer->embedded_ids, chain.scale,
                              dtable_VD);
    });
}

void plan_gather(kernels::backend& device, device_memory& mine, const device_list& group,
                 std::vector<piece>& pieces) {
  const auto piece_floats = piece_floats_of(device);
  for (const auto& peer : group) {
    if (peer.get() == &mine || peer->parameters.empty()) continue;
    const auto theirs = peer->own;
    for (std::size_t at = theirs.begin; at < theirs.end; at += piece_floats) {
      const auto end = std::min(theirs.end, at + piece_floats);
      pieces.emplace_back([=, &device, &mine, peer = peer.get()] {
        device.copy(std::as_bytes(peer->parameters.subspan(at, end - at)),
                    std::as_writable_bytes(mine.parameters.subspan(at, end - at)).data());
      });
    }
  }
}

}  // namespace tandem::train
