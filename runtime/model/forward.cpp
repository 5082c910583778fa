// Shape legend as in kernels/backend.hpp; X = (N + 2K) * H, B rows whose logits are wanted, R ranks
// of an adapter's product, G = 2F with F rounded up to 16: gate and up as `linear` sees them.
#include "runtime/model/forward.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::model {

namespace {

using kernels::rows_in;
using kernels::rows_out;

kernels::kv_layout kv_layout_of(const model_config& config, kernels::kv_format format) {
  return {config.key_heads, config.head_size, format};
}

// Ranks of all modules of one product together: more than a product's inputs say nothing new, and
// small models still take rank 512 of queries, keys and values.
std::int64_t most_ranks(const model_config& config) {
  return std::max({config.model_size, config.hidden_size, std::int64_t{3 * 512}});
}

kernels::step_limits step_limits_of(const model_config& config, const forward_limits& limits) {
  const std::int64_t NH = std::int64_t{config.query_heads} * config.head_size;
  return {.rows = limits.rows,
          .widest_input = std::max({most_ranks(config), NH, config.expert_hidden_size}),
          .experts = config.experts,
          .experts_per_row = config.experts_per_token,
          .expert_hidden = config.expert_hidden_size,
          .context_positions = limits.context_positions,
          .query_heads = config.query_heads,
          .head_size = config.head_size};
}

std::int64_t gate_up_columns(const model_config& c) { return (c.hidden_size + 15) / 16 * 32; }

// Room for A x: rows meet an adapter in pieces that fit, so that any rank does.
constexpr std::int64_t rank_floats_a_row = 64;

// Where each activation lies in the arena, in bytes. One place decides, for counting and for use.
// Queries, keys, values and heads are over when gate and up begin: those lie in the same place.
struct activation_layout {
  std::size_t x_TD = 0;
  std::size_t h_TD = 0;
  std::size_t qkv_TX = 0;
  std::size_t heads_TNH = 0;
  std::size_t gate_up_TG = 0;
  std::size_t hidden_TF = 0;
  std::size_t ranks = 0;
  std::int64_t rank_floats = 0;
  std::size_t router_TE = 0;
  std::size_t route_ids = 0;
  std::size_t route_weights = 0;
  std::size_t last_BD = 0;
  std::size_t logits_BV = 0;
  std::vector<std::size_t> cos_sin;  // of each rope
  std::size_t total = 0;

  activation_layout(const model_config& c, const forward_limits& limits) {
    const auto take = [this](std::int64_t rows, std::int64_t columns) {
      const std::size_t at = total;
      const auto bytes = static_cast<std::size_t>(rows * columns) * sizeof(float);
      total += (bytes + 127) / 128 * 128;
      return at;
    };
    const auto T = limits.rows;
    const std::int64_t H = c.head_size;
    x_TD = take(T, c.model_size);
    h_TD = take(T, c.model_size);
    qkv_TX = take(T, (c.query_heads + 2 * std::int64_t{c.key_heads}) * H);
    heads_TNH = take(T, c.query_heads * H);
    const std::size_t attention_end = std::exchange(total, qkv_TX);
    gate_up_TG = take(T, gate_up_columns(c));
    total = std::max(total, attention_end);
    rank_floats = std::max(most_ranks(c), T * rank_floats_a_row);
    ranks = take(rank_floats, 1);
    hidden_TF = take(T, c.hidden_size);
    router_TE = take(T, c.experts);
    route_ids = take(T, c.experts_per_token);
    route_weights = take(T, c.experts_per_token);
    last_BD = take(limits.logit_rows, c.model_size);
    logits_BV = take(limits.logit_rows, c.vocabulary_size);
    for (const auto& rope : c.ropes) cos_sin.push_back(take(T, rope.rotary_size));
  }
};

template <class T>
kernels::basic_rows<T> part(kernels::basic_rows<T> whole, std::int64_t first, std::int64_t count) {
  return {whole.row(first), count, whole.columns, whole.stride};
}

}  // namespace

struct forward_pass::state {
  state(kernels::backend& d, std::shared_ptr<const weights> m, const forward_limits& l)
      : device(d),
        model(std::move(m)),
        limits(l),
        steps(step_limits_of(model->config, l)),
        layout(model->config, l) {}

  void run_piece();
  // One row of each sequence, none with an adapter: such steps come again and again.
  bool decodes() const;
  kernels::program_shape shape() const;
  void embed();
  void layer(std::size_t index);
  void attention(std::size_t index);
  void feed_forward(std::size_t index);
  void head();

  // y += scale * B (A x) for the rows that have an adapter with this product. x_TX, y_TY hold rows
  // of the step from `first_row` on.
  using adapter_part = adapter_product layer_adapter::*;
  void add_adapters(std::size_t index, adapter_part which, rows_in x_TX, rows_out y_TY,
                    std::int64_t first_row = 0);
  // How many rows, from the first, have no adapter in their feed-forward.
  std::int64_t plain_rows() const;

  rows_out rows(std::size_t offset, std::int64_t count, std::int64_t columns) const {
    return {reinterpret_cast<float*>(activations.bytes().data() + offset), count, columns};
  }
  rows_out step_rows(std::size_t offset, std::int64_t columns) const {
    return rows(offset, std::ssize(input.ids_T), columns);
  }

  kernels::backend& device;
  std::shared_ptr<const weights> model;
  forward_limits limits;
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
  const auto qkv_TX = step_rows(layout.qkv_TX, (c.query_heads + 2 * std::int64_t{c.key_heads}) * H);
  const auto heads_TNH = step_rows(layout.heads_TNH, c.query_heads * H);
  const kernels::attention_shape shape{c.query_heads, c.attention_scale, what.window, 0.0F};
  const auto rope_index = static_cast<std::size_t>(what.rope);
  const kernels::rope_step rope{c.ropes[rope_index].rotary_size,
                                step_rows(layout.cos_sin[rope_index], 1).data};
  const kernels::kv_cache cache{kv_layout_of(c, limits.kv),
                                kv->bytes().data() + index * kv_block_bytes,
                                kv_block_bytes * c.layers.size()};

  if (plain_rows() == std::ssize(input.ids_T)) {
    device.norm_linear(x_TD, w.attention_norm_D, c.norm_eps, w.qkv_XD, w.qkv_bias_X, h_TD, qkv_TX);
  } else {
    device.rms_norm(x_TD, w.attention_norm_D, c.norm_eps, h_TD);
    device.linear(h_TD, w.qkv_XD, w.qkv_bias_X, false, qkv_TX);
    add_adapters(index, &layer_adapter::qkv, h_TD, qkv_TX);
  }
  device.rope_store(qkv_TX, input.spans, shape, rope, w.query_norm_H, w.key_norm_H, c.norm_eps,
                    cache);
  device.attention(qkv_TX, input.spans, shape, cache, heads_TNH);
  if (c.post_norms) {
    device.linear(heads_TNH, w.output_DX, w.output_bias_D, false, h_TD);
    add_adapters(index, &layer_adapter::output, heads_TNH, h_TD);
    device.add_rms_norm(h_TD, w.post_attention_norm_D, c.norm_eps, x_TD);
  } else {
    device.linear(heads_TNH, w.output_DX, w.output_bias_D, true, x_TD);
    add_adapters(index, &layer_adapter::output, heads_TNH, x_TD);
  }
}

void forward_pass::state::feed_forward(std::size_t index) {
  const auto& c = model->config;
  const auto& w = over->layers[index];
  const auto x_TD = step_rows(layout.x_TD, c.model_size);
  const auto h_TD = step_rows(layout.h_TD, c.model_size);
  const auto T = std::ssize(input.ids_T);
  const auto plain = plain_rows();
  const bool dense = !c.layers[index].moe;
  const auto hidden_TF = step_rows(layout.hidden_TF, c.hidden_size);
  if (dense && plain == T)
    device.norm_linear_gated(x_TD, w.feed_forward_norm_D, c.norm_eps, w.gate_up_FD, c.activation,
                             h_TD, hidden_TF);
  else
    device.rms_norm(x_TD, w.feed_forward_norm_D, c.norm_eps, h_TD);
  if (!dense) {
    const auto router_TE = step_rows(layout.router_TE, c.experts);
    auto* const ids =
        reinterpret_cast<std::int32_t*>(activations.bytes().data() + layout.route_ids);
    const kernels::moe_routes routes{c.experts_per_token, ids,
                                     step_rows(layout.route_weights, 1).data};
    device.linear(h_TD, w.router_ED, nullptr, false, router_TE);
    device.moe_route(router_TE, c.normalize_expert_weights, routes);
    device.moe(h_TD, routes, w.experts, c.activation, x_TD);
    return;
  }
  if (plain > 0 && plain < T)
    device.linear_gated(part(h_TD, 0, plain), w.gate_up_FD, c.activation,
                        part(hidden_TF, 0, plain));
  if (plain < T) {
    const auto gate_up_TG = rows(layout.gate_up_TG, T - plain, gate_up_columns(c));
    device.linear(part(h_TD, plain, T - plain), device.gated_as_linear(w.gate_up_FD), nullptr,
                  false, gate_up_TG);
    add_adapters(index, &layer_adapter::gate_up, part(h_TD, plain, T - plain), gate_up_TG, plain);
    device.activate_gated(gate_up_TG, c.activation, part(hidden_TF, plain, T - plain));
  }
  if (c.post_norms) {
    device.linear(hidden_TF, w.down_DF, nullptr, false, h_TD);
    add_adapters(index, &layer_adapter::down, hidden_TF, h_TD);
    device.add_rms_norm(h_TD, w.post_feed_forward_norm_D, c.norm_eps, x_TD);
  } else {
    device.linear(hidden_TF, w.down_DF, nullptr, true, x_TD);
    add_adapters(index, &layer_adapter::down, hidden_TF, x_TD);
  }
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
    const bool gated = which == &layer_adapter::gate_up;
    const auto b_YR = gated ? device.gated_as_linear(product.b_YR) : product.b_YR;
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
  device.norm_linear(last_BD, over->final_norm_D, c.norm_eps, over->head_VD, nullptr, last_BD,
                     part(logits, input.kept_logits, B));
}

std::uint64_t forward_pass::kv_block_bytes(const kernels::backend& device,
                                           const model_config& config, kernels::kv_format format) {
  return config.layers.size() * device.kv_block_bytes(kv_layout_of(config, format));
}

std::uint64_t forward_pass::activation_bytes(const kernels::backend& device,
                                             const model_config& config,
                                             const forward_limits& limits) {
  return activation_layout(config, limits).total +
         device.workspace_bytes(step_limits_of(config, limits));
}

result<std::unique_ptr<forward_pass>> forward_pass::create(kernels::backend& device,
                                                           memory::ledger& book,
                                                           std::shared_ptr<const weights> model,
                                                           const forward_limits& limits) {
  ensure(model != nullptr, "a forward pass without weights");
  ensure(limits.rows > 0 && limits.logit_rows >= 0 && limits.context_positions > 0 &&
             limits.kv_blocks > 0,
         "a forward pass of no rows, no positions or no KV blocks");
  auto s = std::make_unique<state>(device, std::move(model), limits);
  const auto& config = s->model->config;

  auto activations = memory::arena::reserve(book, memory::owner::activations, s->layout.total,
                                            fmt::format("steps of {} rows", limits.rows));
  if (!activations) return activations.error();
  auto workspace = memory::arena::reserve(
      book, memory::owner::workspace, device.workspace_bytes(s->steps), "the kernels' workspace");
  if (!workspace) return workspace.error();
  s->kv_block_bytes = device.kv_block_bytes(kv_layout_of(config, limits.kv));
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
  if (s.piece == 0 && s.decodes() && s.device.begin_program(s.shape())) {
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
  const std::int64_t X = NH + 2 * std::int64_t{c.key_heads} * c.head_size;
  for (const auto& layer : with.layers) {
    const auto fits = [&](const adapter_product& p, std::int64_t inputs, std::int64_t outputs) {
      return p.a_RX.data == nullptr ||
             (p.a_RX.columns == inputs && p.b_YR.rows == outputs && p.a_RX.rows == p.b_YR.columns);
    };
    if (!fits(layer.qkv, c.model_size, X) || !fits(layer.output, NH, c.model_size) ||
        !fits(layer.gate_up, c.model_size, 2 * c.hidden_size) ||
        !fits(layer.down, c.hidden_size, c.model_size))
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
  if (over.config == state_->model->config && over.layers.size() == over.config.layers.size())
    return {};
  return error{
      errc::bad_request,
      fmt::format("weights of a {} model of {} layers in place of a {} of {}", over.config.family,
                  over.layers.size(), state_->model->config.family, state_->model->layers.size()),
      {}};
}

}  // namespace tandem::model
