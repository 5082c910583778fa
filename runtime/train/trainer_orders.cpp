// The programs of a trainer's orders.
#include "runtime/train/optimizer_pieces.hpp"
#include "runtime/train/trainer_state.hpp"

#include <algorithm>
#include <utility>

namespace tandem::train {

void trainer::state::plan_norm_or_update() {
  if (now.kind == order_kind::norm) {
    if (!parted()) return plan_norm(device, home(), came.squares, pieces);
    return plan_norm(device, home(), parts, *exchange, floats_of(memory->activations), came.squares,
                     pieces);
  }
  const auto& settings = order.settings;
  const kernels::adamw_step how{.learning_rate = static_cast<float>(now.learning_rate),
                                .beta1 = static_cast<float>(settings.beta1),
                                .beta2 = static_cast<float>(settings.beta2),
                                .eps = static_cast<float>(settings.eps),
                                .weight_decay = static_cast<float>(settings.weight_decay),
                                .gradient_scale = static_cast<float>(now.gradient_scale),
                                .step = now.step};
  if (!parted()) return plan_update(device, home(), how, pieces);
  plan_update(device, home(), parts, how, pieces);
  plan_table(pieces);
}

void trainer::state::skip_what_is_done() {
  if (!resumes()) return;
  auto& progress = home().progress;
  if (progress.kind != now.kind || progress.step != now.step || progress.round != now.round)
    progress = {now.kind, now.step, now.round, 0};
  next = progress.pieces_done;
}

void trainer::state::plan_round(std::vector<slot_rows> slots) {
  auto& m = *memory;
  const bool backward = now.kind == order_kind::accumulate;
  if (backward) home().progress = {};
  // A group's rounds are added up elsewhere: each begins with nothing.
  if (backward && (now.round == 0 || m.devices > 1)) {
    const auto bytes = std::as_writable_bytes(home().gradients.floats);
    const auto each = piece_floats_of(device) * sizeof(float);
    std::vector<piece> zeroing;
    for (std::size_t at = 0; at < bytes.size(); at += each)
      zeroing.emplace_back([this, part = bytes.subspan(at, std::min(each, bytes.size() - at))] {
        device.fill_zero(part);
      });
    const auto count = parted() ? parts.floats() * sizeof(float) / each + 1 : zeroing.size();
    append_in(count, std::move(zeroing), pieces);
  }
  if (backward)
    pass->write_gradients_to({reinterpret_cast<const std::byte*>(m.parameters.data()),
                              reinterpret_cast<std::byte*>(home().gradients.floats.data())});
  pass->begin(std::move(slots), now.scale, backward, pieces);
  if (backward && m.devices == 1) plan_zeros();
  pieces.emplace_back([this, backward] {
    came.losses = pass->losses();
    if (backward) expose_embedding();
  });
}

// What never learns has no gradient: of the shard that update reads.
void trainer::state::plan_zeros() {
  if (zeros.empty()) return;
  pieces.emplace_back([this] {
    const auto own = home().own;
    const auto gradient = home().shard_gradient();
    for (const auto& block : zeros) {
      const auto end = block.first + (block.runs - 1) * block.stride + block.count;
      if (block.first >= own.begin && end <= own.end) {
        float* const first = gradient.part(block.first, end - block.first).data();
        device.scale_rows(0.0F, {first, static_cast<std::int64_t>(block.runs),
                                 static_cast<std::int64_t>(block.count),
                                 static_cast<std::int64_t>(block.stride)});
        continue;
      }
      for (std::size_t run = 0; run < block.runs; ++run) {
        const auto begin = block.first + run * block.stride;
        const auto first = std::clamp(begin, own.begin, own.end);
        const auto last = std::clamp(begin + block.count, own.begin, own.end);
        if (first < last)
          device.fill_zero(std::as_writable_bytes(gradient.part(first, last - first)));
      }
    }
  });
}

void trainer::state::expose_embedding() {
  if (plan.embedded_bytes == 0) return;
  auto& to = home();
  const auto ids = pass->embedded_ids();
  to.embedded_ids.assign(ids.begin(), ids.end());
  if (ids.empty()) return;
  copy_rows(device, pass->embedded_gradient(), to.embedded_rows.data());
}

embedding_chain trainer::state::embedding() const {
  const auto& masters = *memory->masters;
  const auto* const table = reinterpret_cast<const float*>(masters.embedding_VD.data);
  return {masters.embedding_VD, static_cast<std::size_t>(table - memory->parameters.data()),
          masters.config.embedding_scale};
}

void trainer::state::plan_publish_adapter() {
  const auto from = std::as_bytes(memory->parameters);
  const auto to = spare->memory.bytes();
  const auto each = piece_floats_of(device) * sizeof(float);
  for (std::size_t at = 0; at < from.size(); at += each) {
    const auto count = std::min(each, from.size() - at);
    pieces.emplace_back(
        [this, from, to, at, count] { device.copy(from.subspan(at, count), to.data() + at); });
  }
  pieces.emplace_back([this] {
    spare->version = now.version;
    came.adapter = std::exchange(spare, nullptr);
  });
  // The next one's memory is taken and touched now; where there is none, the next order says so.
  pieces.emplace_back([this] {
    if (auto made = blank_adapter()) spare = std::move(*made);
  });
  for (std::size_t at = 0; at < from.size(); at += each)
    pieces.emplace_back([this, at, each] {
      if (spare == nullptr) return;
      const auto bytes = spare->memory.bytes();
      device.fill_zero(bytes.subspan(at, std::min(each, bytes.size() - at)));
    });
}

}  // namespace tandem::train
