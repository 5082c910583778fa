// Shape legend as in kernels/backend.hpp; X = (N + 2K) * H, B rows whose logits are wanted, R ranks
// of an adapter's product, G = 2F with F rounded up to 16: gate and up as `linear` sees them.
#include "runtime/model/forward.hpp"

#include "runtime/model/forward_layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::model {

namespace {

using kernels::rows_in;
using kernels::rows_out;

template <class T>
kernels::basic_rows<T> part(kernels::basic_rows<T> whole, std::int64_t first, std::int64_t count) {
  return {whole.row(first), count, whole.columns, whole.stride};
}

// These columns of all rows.
rows_out columns_of(rows_out whole, output_range columns) {
  return {whole.data + columns.first, whole.rows, columns.count, whole.stride};
}

}  // namespace

struct forward_pass::state {
  state(kernels::backend& d, std::shared_ptr<const weights> m, const forward_limits& l,
        kernels::collective* r)
      : device(d),
        model(std::move(m)),
        limits(l),
        ranks(r),
        split(split_of(model->config, model->place)),
        own(split.own()),
        steps(step_limits_of(model->config, own, l)),
        layout(model->config, own, l) {
    for (const auto& part : split.parts) {
      const std::int64_t H = model->config.head_size;
      shares.heads.push_back(part.query_heads.count * H);
      shares.model.push_back(part.model.count);
      shares.hidden.push_back(part.hidden.count);
      shares.vocabulary.push_back(part.vocabulary.count);
    }
  }

  void run_piece();
  // One row of each sequence, none with an adapter: such steps come again and again.
  bool decodes() const;
  bool can_be_program() const { return ranks == nullptr || ranks->in_programs(); }
  kernels::program_shape shape() const;
  void embed();
  void layer(std::size_t index);
  void attention(std::size_t index);
  void feed_forward(std::size_t index);
  // hidden = act(gate) * up of the normed rows, this rank's columns, adapters included.
  void gated(std::size_t index, rows_out hidden_TF);
  void head();

  // y += scale * B (A x) for the rows that have an adapter with this product. x_TX, y_TY hold rows
  // of the step from `first_row` on.
  using adapter_part = adapter_product layer_adapter::*;
  void add_adapters(std::size_t index, adapter_part which, rows_in x_TX, rows_out y_TY,
                    std::int64_t first_row = 0);
  // How many rows, from the first, have no adapter in their feed-forward.
  std::int64_t plain_rows() const;

  // y (or y += ... when `add`) of this rank's columns, adapters included.
  void product(std::size_t index, adapter_part which, rows_in x_TX,
               const kernels::packed_matrix& w_YX, const float* bias_Y, bool add, rows_out y_TY);
  // Every rank has the columns of all, each of which lay in its own place.
  void gather(rows_out whole_TX, output_range mine, std::span<const std::int64_t> columns_R);

  rows_out rows(std::size_t offset, std::int64_t count, std::int64_t columns) const {
    return {reinterpret_cast<float*>(activations.bytes().data() + offset), count, columns};
  }
  rows_out step_rows(std::size_t offset, std::int64_t columns) const {
    return rows(offset, std::ssize(input.ids_T), columns);
  }

  kernels::backend& device;
  std::shared_ptr<const weights> model;
  forward_limits limits;
  kernels::collective* ranks;  // null: one
  tensor_split split;
  rank_part own;
  struct {  // columns of each rank
    std::vector<std::int64_t> heads;
    std::vector<std::int64_t> model;
    std::vector<std::int64_t> hidden;
    std::vector<std::int64_t> vocabulary;
  } shares;
  kernels::step_limits steps;
  activation_layout layout;
  memory::arena activations;
  memory::arena workspace;
  std::shared_ptr<memory::arena> kv;
  // All layers of a block lie together: the memory a new block touches for the first time is then
  // one short range, not a page in each layer's part; those faults come all in one step and were
  // felt as a pause of 0.2 s.
  std::size_t kv_block_bytes = 0;  // of one layer

  forward_input input;
  const weights* over = nullptr;  // of the pass under way
  std::size_t piece = 0;
  rows_out logits;
};

void forward_pass::state::run_piece() {
  if (piece == 0)
    embed();
  else if (piece <= model->layers.size())
    layer(piece - 1);
  else
    head();
  ++piece;
}

bool forward_pass::state::decodes() const {
  return input.spans.size() == input.ids_T.size() && plain_rows() == std::ssize(input.ids_T);
}

kernels::program_shape forward_pass::state::shape() const {
  // A power of two of positions, at least so many: a stream then has few programs in its life.
  std::int64_t positions = 256;
  for (const auto position : input.positions_T)
    while (positions <= position) positions *= 2;
  return {over,
          over->version,
          std::ssize(input.ids_T),
          std::ssize(input.logit_rows),
          input.kept_logits,
          std::min(positions, limits.context_positions)};
}

void forward_pass::state::embed() {
  const auto& c = model->config;
  device.embed(over->embedding_VD, input.ids_T, c.embedding_scale,
               step_rows(layout.x_TD, c.model_size));
  for (std::size_t i = 0; i < c.ropes.size(); ++i) {
    const auto& rope = c.ropes[i];
    const bool longer =
        !rope.long_inverse_frequency.empty() && limits.context_positions > rope.original_context;
    device.rope_angles(input.positions_T,
                       longer ? rope.long_inverse_frequency : rope.inverse_frequency,
                       rope.attention_factor, step_rows(layout.cos_sin[i], rope.rotary_size).data);
  }
}

void forward_pass::state::layer(std::size_t index) {
  attention(index);
  feed_forward(index);
}

void forward_pass::state::attention(std::size_t index) {
  const auto& c = model->config;
  const auto& w = over->layers[index];
  const auto& what = c.layers[index];
  const std::int64_t H = c.head_size;
  const auto x_TD = step_rows(layout.x_TD, c.model_size);
  const auto h_TD = step_rows(layout.h_TD, c.model_size);
  const auto qkv_TX = step_rows(layout.qkv_TX, qkv_columns(c, own));
  const auto heads_TNH = step_rows(layout.heads_TNH, c.query_heads * H);
  const output_range own_heads{own.query_heads.first * H, own.query_heads.count * H};
  const kernels::attention_shape shape{static_cast<int>(own.query_heads.count), c.attention_scale,
                                       what.window, c.attention_softcap};
  const auto rope_index = static_cast<std::size_t>(what.rope);
  const kernels::rope_step rope{c.ropes[rope_index].rotary_size,
                                step_rows(layout.cos_sin[rope_index], 1).data};
  const kernels::kv_cache cache{kv_layout_of(c, own, limits.kv),
                                kv->bytes().data() + index * kv_block_bytes,
                                kv_block_bytes * c.layers.size()};

  if (!c.pre_norms) {
    product(index, &layer_adapter::qkv, x_TD, w.qkv_XD, w.qkv_bias_X, false, qkv_TX);
  } else if (plain_rows() == std::ssize(input.ids_T)) {
    device.norm_linear(x_TD, w.attention_norm_D, c.norm_eps, w.qkv_XD, w.qkv_bias_X, h_TD, qkv_TX);
  } else {
    device.rms_norm(x_TD, w.attention_norm_D, c.norm_eps, h_TD);
    product(index, &layer_adapter::qkv, h_TD, w.qkv_XD, w.qkv_bias_X, false, qkv_TX);
  }
  if (c.wide_norms) {
    const auto q_TX = columns_of(qkv_TX, {0, c.query_heads * H});
    const auto k_TX = columns_of(qkv_TX, {c.query_heads * H, c.key_heads * H});
    device.rms_norm(q_TX, w.query_norm_H, c.norm_eps, q_TX);
    device.rms_norm(k_TX, w.key_norm_H, c.norm_eps, k_TX);
  }
  device.rope_store(qkv_TX, input.spans, shape, rope, c.head_norms ? w.query_norm_H : nullptr,
                    c.head_norms ? w.key_norm_H : nullptr, c.norm_eps, cache);
  device.attention(qkv_TX, input.spans, shape, cache, columns_of(heads_TNH, own_heads));
  gather(heads_TNH, own_heads, shares.heads);
  const auto out_TD = c.post_norms ? h_TD : x_TD;
  product(index, &layer_adapter::output, heads_TNH, w.output_DX, w.output_bias_D, !c.post_norms,
          columns_of(out_TD, own.model));
  gather(out_TD, own.model, shares.model);
  if (c.post_norms) device.add_rms_norm(h_TD, w.post_attention_norm_D, c.norm_eps, x_TD);
}

void forward_pass::state::feed_forward(std::size_t index) {
  const auto& c = model->config;
  const auto& w = over->layers[index];
  const auto x_TD = step_rows(layout.x_TD, c.model_size);
  const auto h_TD = step_rows(layout.h_TD, c.model_size);
  if (c.layers[index].moe) {
    const auto router_TE = step_rows(layout.router_TE, c.experts);
    auto* const ids =
        reinterpret_cast<std::int32_t*>(activations.bytes().data() + layout.route_ids);
    const kernels::moe_routes routes{c.experts_per_token, ids,
                                     step_rows(layout.route_weights, 1).data};
    device.rms_norm(x_TD, w.feed_forward_norm_D, c.norm_eps, h_TD);
    device.linear(h_TD, w.router_ED, nullptr, false, router_TE);
    device.moe_route(router_TE, c.normalize_expert_weights, routes);
    device.moe(h_TD, routes, w.experts, c.activation, x_TD);
    return;
  }
  const auto hidden_TF = step_rows(layout.hidden_TF, c.hidden_size);
  if (own.hidden.count > 0) gated(index, columns_of(hidden_TF, own.hidden));
  gather(hidden_TF, own.hidden, shares.hidden);
  const auto out_TD = c.post_norms ? h_TD : x_TD;
  product(index, &layer_adapter::down, hidden_TF, w.down_DF, nullptr, !c.post_norms,
          columns_of(out_TD, own.model));
  gather(out_TD, own.model, shares.model);
  if (c.post_norms) device.add_rms_norm(h_TD, w.post_feed_forward_norm_D, c.norm_eps, x_TD);
}

void forward_pass::state::gated(std::size_t index, rows_out hidden_TF) {
  const auto& c = model->config;
  const auto& w = over->layers[index];
  const auto x_TD = step_rows(layout.x_TD, c.model_size);
  const auto h_TD = step_rows(c.pre_norms ? layout.h_TD : layout.x_TD, c.model_size);
  const auto T = std::ssize(input.ids_T);
  const auto plain = plain_rows();
  if (plain == T && c.pre_norms) {
    device.norm_linear_gated(x_TD, w.feed_forward_norm_D, c.norm_eps, w.gate_up_FD, c.activation,
                             h_TD, hidden_TF);
    return;
  }
  if (c.pre_norms) device.rms_norm(x_TD, w.feed_forward_norm_D, c.norm_eps, h_TD);
  if (plain > 0)
    device.linear_gated(part(h_TD, 0, plain), w.gate_up_FD, c.activation,
                        part(hidden_TF, 0, plain));
  if (plain == T) return;
  const auto gate_up_TG = rows(layout.gate_up_TG, T - plain, gate_up_columns(own.hidden.count));
  device.linear(part(h_TD, plain, T - plain), device.gated_as_linear(w.gate_up_FD), nullptr, false,
                gate_up_TG);
  add_adapters(index, &layer_adapter::gate_up, part(h_TD, plain, T - plain), gate_up_TG, plain);
  device.activate_gated(gate_up_TG, c.activation, part(hidden_TF, plain, T - plain));
}

void forward_pass::state::product(std::size_t index, adapter_part which, rows_in x_TX,
                                  const kernels::packed_matrix& w_YX, const float* bias_Y, bool add,
                                  rows_out y_TY) {
  if (y_TY.columns == 0) return;  // fewer units of outputs than ranks
  device.linear(x_TX, w_YX, bias_Y, add, y_TY);
  add_adapters(index, which, x_TX, y_TY);
}

void forward_pass::state::gather(rows_out whole_TX, output_range mine,
                                 std::span<const std::int64_t> columns_R) {
  if (ranks != nullptr) ranks->gather_columns(columns_of(whole_TX, mine), columns_R, whole_TX);
}

std::int64_t forward_pass::state::plain_rows() const {
  std::int64_t plain = 0;
  for (const auto& group : input.groups) {
    if (group.with != nullptr) return plain;
    plain += group.row_count;
  }
  return std::ssize(input.ids_T);
}

void forward_pass::state::add_adapters(std::size_t index, adapter_part which, rows_in x_TX,
                                       rows_out y_TY, std::int64_t first_row) {
  for (const auto& group : input.groups) {
    if (group.with == nullptr) continue;
    const auto& product = group.with->layers[index].*which;
    if (product.a_RX.data == nullptr) continue;
    const bool is_gated = which == &layer_adapter::gate_up;
    const auto b_YR = is_gated ? device.gated_as_linear(product.b_YR) : product.b_YR;
    const auto R = product.a_RX.rows;
    const auto most = layout.rank_floats / R;
    for (std::int64_t done = 0; done < group.row_count; done += most) {
      const auto n = std::min(most, group.row_count - done);
      const auto at = group.first_row + done - first_row;
      const auto ax_TR = rows(layout.ranks, n, R);
      device.linear(part(x_TX, at, n), product.a_RX, nullptr, false, ax_TR);
      device.scale_rows(group.with->layout.scale, ax_TR);
      device.linear(ax_TR, b_YR, nullptr, true, part(y_TY, at, n));
    }
  }
}

void forward_pass::state::head() {
  const auto& c = model->config;
  const auto B = std::ssize(input.logit_rows);
  logits = rows(layout.logits_BV, input.kept_logits + B, c.vocabulary_size);
  if (B == 0) return;
  const auto last_BD = rows(layout.last_BD, B, c.model_size);
  device.gather_rows(step_rows(layout.x_TD, c.model_size), input.logit_rows, last_BD);
  const auto logits_BV = part(logits, input.kept_logits, B);
  if (own.vocabulary.count > 0)
    device.norm_linear(last_BD, over->final_norm_D, c.norm_eps, over->head_VD, nullptr, last_BD,
                       columns_of(logits_BV, own.vocabulary));
  gather(logits_BV, own.vocabulary, shares.vocabulary);
}

std::uint64_t forward_pass::kv_block_bytes(const kernels::backend& device,
                                           const model_config& config, kernels::kv_format format,
                                           tensor_rank place) {
  return config.layers.size() *
         device.kv_block_bytes(kv_layout_of(config, split_of(config, place).own(), format));
}

std::uint64_t forward_pass::activation_bytes(const kernels::backend& device,
                                             const model_config& config,
                                             const forward_limits& limits, tensor_rank place) {
  const auto split = split_of(config, place);
  return activation_layout(config, split.own(), limits).total +
         device.workspace_bytes(step_limits_of(config, split.own(), limits));
}

result<std::unique_ptr<forward_pass>> forward_pass::create(kernels::backend& device,
                                                           memory::ledger& book,
                                                           std::shared_ptr<const weights> model,
                                                           const forward_limits& limits,
                                                           kernels::collective* ranks) {
  ensure(model != nullptr, "a forward pass without weights");
  ensure(limits.rows > 0 && limits.logit_rows >= 0 && limits.context_positions > 0 &&
             limits.kv_blocks > 0,
         "a forward pass of no rows, no positions or no KV blocks");
  const auto place = model->place;
  ensure(ranks == nullptr ? place == tensor_rank{}
                          : ranks->rank() == place.rank && ranks->size() == place.ranks,
         "weights of the rank that runs them");
  auto s = std::make_unique<state>(device, std::move(model), limits, ranks);
  const auto& config = s->model->config;

  auto activations = memory::arena::reserve(book, memory::owner::activations, s->layout.total,
                                            fmt::format("steps of {} rows", limits.rows));
  if (!activations) return activations.error();
  auto workspace = memory::arena::reserve(
      book, memory::owner::workspace, device.workspace_bytes(s->steps), "the kernels' workspace");
  if (!workspace) return workspace.error();
  s->kv_block_bytes = device.kv_block_bytes(kv_layout_of(config, s->own, limits.kv));
  auto kv = memory::arena::reserve(
      book, memory::owner::kv_blocks,
      static_cast<std::size_t>(limits.kv_blocks) * s->kv_block_bytes * config.layers.size(),
      fmt::format("a cache of {} KV blocks", limits.kv_blocks));
  if (!kv) return kv.error();
  s->activations = std::move(*activations);
  s->workspace = std::move(*workspace);
  s->kv = std::make_shared<memory::arena>(std::move(*kv));
  return std::make_unique<forward_pass>(std::move(s));
}

const std::shared_ptr<memory::arena>& forward_pass::kv() const { return state_->kv; }
std::size_t forward_pass::kv_block_bytes() const {
  return state_->kv_block_bytes * state_->model->config.layers.size();
}

forward_pass::forward_pass(std::unique_ptr<state> s) : state_(std::move(s)) {}
forward_pass::~forward_pass() {
  if (state_) state_->device.forget_programs();
}

void forward_pass::begin(const forward_input& input) {
  const auto& limits = state_->limits;
  const auto T = std::ssize(input.ids_T);
  ensure(T > 0 && T <= limits.rows, "a step of more rows than were agreed on, or of none");
  ensure(std::ssize(input.positions_T) == T, "one position for each row");
  ensure(input.kept_logits >= 0 &&
             input.kept_logits + std::ssize(input.logit_rows) <= limits.logit_rows,
         "more logit rows than were agreed on");
  std::int64_t covered = 0;
  for (const auto& span : input.spans) {
    ensure(span.first_row == covered && span.row_count > 0, "spans cover the rows in order");
    ensure(span.first_position + std::int64_t{span.row_count} <= limits.context_positions,
           "a position beyond the context");
    covered += span.row_count;
  }
  ensure(covered == T, "spans cover all rows");
  covered = 0;
  for (const auto& group : input.groups) {
    ensure(group.first_row == covered && group.row_count > 0, "groups cover the rows in order");
    ensure(group.with != nullptr || &group == input.groups.data() || (&group)[-1].with == nullptr,
           "rows without an adapter come first");
    covered += group.row_count;
  }
  ensure(input.groups.empty() || covered == T, "groups cover all rows");
  for (const auto id : input.ids_T)
    ensure(id >= 0 && id < state_->model->config.vocabulary_size, "a token id of the vocabulary");
  for (const auto row : input.logit_rows) ensure(row >= 0 && row < T, "a logit row of the step");
  state_->input = input;
  state_->over = input.over != nullptr ? input.over : state_->model.get();
  state_->piece = 0;
}

bool forward_pass::advance() {
  auto& s = *state_;
  ensure(s.piece < piece_count(), "advance beyond the pass's end");
  // Another pass may have run on this device since the last piece.
  s.device.bind_workspace(s.workspace.bytes(), s.steps);
  if (s.piece == 0 && s.decodes() && s.can_be_program() && s.device.begin_program(s.shape())) {
    while (s.piece < piece_count()) s.run_piece();
    s.device.end_program();
    return false;
  }
  s.run_piece();
  return s.piece < piece_count();
}

std::size_t forward_pass::piece_count() const { return state_->model->layers.size() + 2; }

kernels::rows_out forward_pass::logits() const {
  ensure(state_->piece == piece_count(), "logits of an unfinished pass");
  return state_->logits;
}

const weights& forward_pass::model() const { return *state_->model; }

result<void> forward_pass::check(const adapter& with) const {
  const auto& c = state_->model->config;
  const auto refuse = [](std::string why) { return error{errc::bad_request, std::move(why), {}}; };
  if (with.layers.size() != c.layers.size())
    return refuse(fmt::format("an adapter of {} layers for a model of {}", with.layers.size(),
                              c.layers.size()));
  const std::int64_t NH = std::int64_t{c.query_heads} * c.head_size;
  const auto& own = state_->own;
  for (const auto& layer : with.layers) {
    const auto fits = [&](const adapter_product& p, std::int64_t inputs, std::int64_t outputs) {
      return p.a_RX.data == nullptr ||
             (p.a_RX.columns == inputs && p.b_YR.rows == outputs && p.a_RX.rows == p.b_YR.columns);
    };
    if (!fits(layer.qkv, c.model_size, qkv_columns(c, own)) ||
        !fits(layer.output, NH, own.model.count) ||
        !fits(layer.gate_up, c.model_size, 2 * own.hidden.count) ||
        !fits(layer.down, c.hidden_size, own.model.count))
      return refuse(fmt::format("an adapter for another model than this {} of {} x {}", c.family,
                                c.layers.size(), c.model_size));
    const auto ranks = std::max({layer.qkv.a_RX.rows, layer.output.a_RX.rows,
                                 layer.gate_up.a_RX.rows, layer.down.a_RX.rows});
    if (ranks > most_ranks(c))
      return refuse(
          fmt::format("an adapter whose modules of one product have {} ranks together, "
                      "{} can be served; lower its rank",
                      ranks, most_ranks(c)));
  }
  return {};
}

result<void> forward_pass::check(const weights& over) const {
  if (over.config == state_->model->config && over.layers.size() == over.config.layers.size() &&
      over.place == state_->model->place)
    return {};
  return error{
      errc::bad_request,
      fmt::format("weights of a {} model of {} layers in place of a {} of {}", over.config.family,
                  over.layers.size(), state_->model->config.family, state_->model->layers.size()),
      {}};
}

}  // namespace tandem::model
