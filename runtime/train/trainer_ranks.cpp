// One rank's side of a job on devices that hold a model together: what it takes, how it opens, and
// the embedding that each of them looks up in.
#include "runtime/train/optimizer_pieces.hpp"
#include "runtime/train/trainer_state.hpp"

#include <algorithm>
#include <utility>

namespace tandem::train {

result<trained_part> part_of_rank(kernels::backend& device, const model::model_config& config,
                                  const model::weights* base, const model::model_source* source,
                                  kernels::collective& ranks, job_plan& plan) {
  trained_part part;
  auto layout = rank_layout::make(device, config, ranks.size());
  if (!layout) return layout.error();
  part.layout = std::move(*layout);
  const model::weights* weights = base;
  auto bytes = plan.activation_bytes;
  if (base == nullptr) {
    auto masters = model::plan_masters(*source, device, {ranks.rank(), ranks.size()});
    if (!masters) return masters.error();
    part.masters.emplace(std::move(*masters));
    weights = part.masters->model.get();
    bytes = std::max(bytes, room_for_norms(device, part.layout) * sizeof(float));
  }
  const rank_exchange exchange(device, config, &ranks);
  bytes = std::max(bytes, plan.activation_bytes + room_for_weights(device, *weights, exchange,
                                                                   plan.limits.head_columns));
  plan.memory.activations += bytes - plan.activation_bytes;
  plan.activation_bytes = bytes;
  return part;
}

kernels::packed_matrix trainer::state::table() const {
  const auto& c = memory->masters->config;
  return {kernels::weight_format::f32, c.vocabulary_size, c.model_size,
          memory->table.bytes().data()};
}

void trainer::state::plan_opening() {
  if (order.checkpoint.empty())
    for (std::size_t i = 0; i < loading->piece_count(); ++i)
      opening.emplace_back([this, i] { loading->run(i); });
  plan_table(opening);
}

// Every rank looks up any row of the embedding, and trains its own.
void trainer::state::plan_table(std::vector<piece>& to) {
  const auto found = std::find_if(parts.whole.begin(), parts.whole.end(), [](const parameter& one) {
    return one.name.ends_with("embed_tokens.weight");
  });
  ensure(found != parts.whole.end(), "a model without an embedding");
  const auto each = piece_floats_of(device);
  for (std::size_t at = 0; at < found->floats; at += each)
    to.emplace_back(
        [this, at, first = found->first_float, count = std::min(each, found->floats - at)] {
          exchange->whole_floats(parts, first + at, count, memory->parameters.data(),
                                 floats_of(memory->table).data() + at);
        });
}

bool trainer::open_more() {
  auto& s = *state_;
  if (s.opened_pieces == s.opening.size()) return false;
  s.opening[s.opened_pieces++]();
  s.device.finish();
  if (s.opened_pieces < s.opening.size()) return true;
  s.opening.clear();
  s.opened_pieces = 0;
  s.loading.reset();
  s.source.reset();
  return false;
}

}  // namespace tandem::train
