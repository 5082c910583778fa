#include "runtime/model/load_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_set>
#include <utility>

namespace tandem::model {

namespace {

using kernels::packed_matrix;
using kernels::weight_format;

constexpr std::uint64_t alignment = 64;

std::uint64_t aligned(std::uint64_t bytes) {
  return (bytes + alignment - 1) / alignment * alignment;
}

std::string spelled(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// What a matrix is for decides how far it may be rounded.
enum class matrix_role : std::uint8_t { product, table, router };

// How much of a number each format keeps; f16, bf16 and fp8 keep different things.
int precision(weight_format format) {
  switch (format) {
    case weight_format::f32:
      return 5;
    case weight_format::f16:
    case weight_format::bf16:
    case weight_format::fp8:
      return 4;
    case weight_format::q8_0:
      return 3;
    case weight_format::q4_1:
      return 2;
    case weight_format::q4_0:
      return 1;
  }
  return 0;
}

// The format that loses nothing of either.
weight_format covering(weight_format a, weight_format b) {
  if (a == b) return a;
  if (precision(a) == precision(b)) return weight_format::f32;
  return precision(a) > precision(b) ? a : b;
}

weight_format wanted_format(load_format format, matrix_role role, const matrix_load& load) {
  switch (format) {
    case load_format::f32:
      return weight_format::f32;
    // A router's few numbers choose whole experts, and an embedding's rows are read as they are:
    // the one is not rounded at all, the other not to four bits.
    case load_format::bf16:
    case load_format::dummy:
      return role == matrix_role::router ? weight_format::f32 : weight_format::bf16;
    // The rows around the products stay what FP8 files have them in.
    case load_format::fp8:
      if (role == matrix_role::router) return weight_format::f32;
      return role == matrix_role::table ? weight_format::bf16 : weight_format::fp8;
    case load_format::q8_0:
      return role == matrix_role::router ? weight_format::f32 : weight_format::q8_0;
    case load_format::q4_1:
      if (role == matrix_role::router) return weight_format::f32;
      return role == matrix_role::table ? weight_format::q8_0 : weight_format::q4_1;
    case load_format::native:
      break;
  }
  auto kept = kernels::native_format(load.parts.front().tensor->format);
  for (const auto& part : load.parts)
    kept = covering(kept, kernels::native_format(part.tensor->format));
  return kept;
}

// HF row h * H + s * H/2 + i stands at h * H + 2 * i + s in the file: the converter of llama.cpp
// interleaves the two halves that rope turns together.
std::vector<std::int32_t> halves_from_interleaved(int heads, int head_size) {
  std::vector<std::int32_t> order;
  order.reserve(static_cast<std::size_t>(heads) * static_cast<std::size_t>(head_size));
  for (std::int32_t h = 0; h < heads; ++h)
    for (std::int32_t s = 0; s < 2; ++s)
      for (std::int32_t i = 0; i < head_size / 2; ++i) order.push_back(h * head_size + 2 * i + s);
  return order;
}

row_part part_of(const row_part& whole, output_range rows) {
  return {whole.tensor, whole.first_row + rows.first, rows.count, {}};
}

class planner {
 public:
  planner(const model_config& config, const tensor_set& files, load_format format,
          const kernels::backend& device, const tensor_split& split, table_rows embedding)
      : config_(config),
        files_(files),
        names_(files.names),
        format_(format),
        device_(device),
        split_(split),
        own_(split.own()) {
    plan_.table = embedding;
  }

  result<load_plan> run();

 private:
  void plan_layer(std::size_t index);
  void plan_attention(layer_weights& layer);
  void plan_feed_forward(layer_weights& layer);
  void plan_experts(layer_weights& layer);
  void expert(kernels::expert_matrices& target, std::int64_t index);

  std::string in_layer(std::string_view name) const { return prefix_ + std::string(name); }
  const stored_tensor* find(const std::string& name, std::vector<std::int64_t> shape);
  row_part matrix_rows(std::string_view name, std::int64_t rows, std::int64_t columns);
  row_part vector_rows(const std::string& name, std::int64_t size);
  row_part heads_of(row_part whole, output_range heads, std::span<const std::int32_t> order) const;
  std::vector<row_part> own_heads_of_fused(const row_part& whole) const;
  row_part expert_rows(std::string_view name, std::int64_t index, std::int64_t rows,
                       std::int64_t columns);
  // Of rows of which all ranks together have so many.
  void matrix(packed_matrix& target, std::vector<row_part> parts, std::int64_t whole_rows,
              std::int64_t columns, matrix_role role, bool gated = false);
  void vector(const float*& target, std::vector<row_part> parts, std::int64_t whole_size,
              float added = 0.0F, float invented = 0.0F);
  void norm(const float*& target, const std::string& name, std::int64_t size, float factor = 1.0F);
  void name_precision();
  void refuse(error why) {
    if (!failure_) failure_ = std::move(why);
  }

  const model_config& config_;
  const tensor_set& files_;
  const tensor_names& names_;
  const load_format format_;
  const kernels::backend& device_;
  const tensor_split& split_;
  const rank_part& own_;
  load_plan plan_;
  std::string prefix_;
  std::unordered_set<std::string_view> used_;
  std::optional<error> failure_;
};

result<load_plan> planner::run() {
  plan_.model = std::make_shared<weights>();
  weights& model = *plan_.model;
  model.config = config_;
  model.place = split_.place;
  model.format = format_;
  model.layers.resize(config_.layers.size());
  if (names_.interleaved_heads) {
    plan_.query_order = halves_from_interleaved(config_.query_heads, config_.head_size);
    plan_.key_order = halves_from_interleaved(config_.key_heads, config_.head_size);
  }

  const auto D = config_.model_size;
  const auto V = config_.vocabulary_size;
  const auto table = [&](packed_matrix& target, std::string_view name, output_range rows) {
    matrix(target, {row_part{find(std::string(name), {V, D}), rows.first, rows.count, {}}}, V, D,
           matrix_role::table);
  };
  table(model.embedding_VD, names_.embedding,
        plan_.table == table_rows::own ? own_.vocabulary : output_range{0, V});
  for (std::size_t i = 0; i < config_.layers.size() && !failure_; ++i) plan_layer(i);
  norm(model.final_norm_D, std::string(names_.final_norm), D, config_.logit_scale);
  if (!config_.tied_head) table(model.head_VD, names_.head, own_.vocabulary);
  if (failure_) return *failure_;

  if (format_ == load_format::dummy) {  // nothing was read
    name_precision();
    return std::move(plan_);
  }
  for (const auto& [name, tensor] : files_.tensors)
    if (!used_.contains(name) && !files_.ignorable(name))
      return error{errc::unsupported,
                   fmt::format("tensor '{}' {} is not known in a {} model: its effect would be "
                               "lost",
                               name, spelled(tensor.shape), config_.family),
                   {}};
  name_precision();
  return std::move(plan_);
}

void planner::plan_layer(std::size_t index) {
  prefix_ = fmt::format(fmt::runtime(names_.layer), index);
  layer_weights& layer = plan_.model->layers[index];
  const auto D = config_.model_size;
  if (config_.pre_norms) {
    norm(layer.attention_norm_D, in_layer(names_.attention_norm), D);
    norm(layer.feed_forward_norm_D, in_layer(names_.feed_forward_norm), D);
  }
  if (config_.post_norms) {
    norm(layer.post_attention_norm_D, in_layer(names_.post_attention_norm), D);
    norm(layer.post_feed_forward_norm_D, in_layer(names_.post_feed_forward_norm), D);
  }
  if (config_.head_norms || config_.wide_norms) {
    const std::int64_t H = config_.head_size;
    norm(layer.query_norm_H, in_layer(names_.query_norm),
         config_.wide_norms ? config_.query_heads * H : H);
    norm(layer.key_norm_H, in_layer(names_.key_norm),
         config_.wide_norms ? config_.key_heads * H : H);
  }
  plan_attention(layer);
  if (config_.layers[index].moe)
    plan_experts(layer);
  else
    plan_feed_forward(layer);
}

void planner::plan_attention(layer_weights& layer) {
  const auto D = config_.model_size;
  const std::int64_t NH = std::int64_t{config_.query_heads} * config_.head_size;
  const std::int64_t KH = std::int64_t{config_.key_heads} * config_.head_size;
  std::vector<row_part> rows;
  std::vector<row_part> biases;
  if (!names_.fused_qkv.empty()) {
    rows = own_heads_of_fused(matrix_rows(names_.fused_qkv, NH + 2 * KH, D));
  } else {
    const auto& [queries, keys] = std::pair(own_.query_heads, own_.key_heads);
    rows = {heads_of(matrix_rows(names_.query, NH, D), queries, plan_.query_order),
            heads_of(matrix_rows(names_.key, KH, D), keys, plan_.key_order),
            heads_of(matrix_rows(names_.value, KH, D), keys, {})};
    if (config_.qkv_bias)
      biases = {
          heads_of(vector_rows(in_layer(names_.query) + ".bias", NH), queries, plan_.query_order),
          heads_of(vector_rows(in_layer(names_.key) + ".bias", KH), keys, plan_.key_order),
          heads_of(vector_rows(in_layer(names_.value) + ".bias", KH), keys, {})};
  }
  matrix(layer.qkv_XD, std::move(rows), NH + 2 * KH, D, matrix_role::product);
  if (config_.qkv_bias) vector(layer.qkv_bias_X, std::move(biases), NH + 2 * KH);
  matrix(layer.output_DX, {part_of(matrix_rows(names_.output, D, NH), own_.model)}, D, NH,
         matrix_role::product);
  if (config_.output_bias)
    vector(layer.output_bias_D,
           {part_of(vector_rows(in_layer(names_.output) + ".bias", D), own_.model)}, D);
}

// A file's order of rows stays within a head, so the first heads' is that of any.
row_part planner::heads_of(row_part whole, output_range heads,
                           std::span<const std::int32_t> order) const {
  const std::int64_t H = config_.head_size;
  auto part = part_of(whole, {heads.first * H, heads.count * H});
  if (!order.empty()) part.order = order.first(static_cast<std::size_t>(part.rows));
  return part;
}

std::vector<row_part> planner::own_heads_of_fused(const row_part& whole) const {
  const auto N = config_.query_heads;
  const auto K = config_.key_heads;
  const auto keys = own_.key_heads;
  return {heads_of(whole, own_.query_heads, {}), heads_of(whole, {N + keys.first, keys.count}, {}),
          heads_of(whole, {N + K + keys.first, keys.count}, {})};
}

void planner::plan_feed_forward(layer_weights& layer) {
  const auto D = config_.model_size;
  const auto F = config_.hidden_size;
  std::vector<row_part> halves;
  if (names_.fused_gate_up.empty()) {
    halves = {part_of(matrix_rows(names_.gate, F, D), own_.hidden),
              part_of(matrix_rows(names_.up, F, D), own_.hidden)};
  } else {
    const row_part both = matrix_rows(names_.fused_gate_up, 2 * F, D);
    halves = {part_of(both, own_.hidden),
              part_of(both, {F + own_.hidden.first, own_.hidden.count})};
  }
  matrix(layer.gate_up_FD, std::move(halves), 2 * F, D, matrix_role::product, true);
  matrix(layer.down_DF, {part_of(matrix_rows(names_.down, D, F), own_.model)}, D, F,
         matrix_role::product);
}

void planner::plan_experts(layer_weights& layer) {
  const auto D = config_.model_size;
  matrix(layer.router_ED, {matrix_rows(names_.router, config_.experts, D)}, config_.experts, D,
         matrix_role::router);
  layer.experts.resize(static_cast<std::size_t>(config_.experts));
  for (std::int64_t e = 0; e < config_.experts && !failure_; ++e)
    expert(layer.experts[static_cast<std::size_t>(e)], e);
}

void planner::expert(kernels::expert_matrices& target, std::int64_t index) {
  const auto D = config_.model_size;
  const auto F = config_.expert_hidden_size;
  matrix(target.gate_up_FD,
         {expert_rows(names_.expert_gate, index, F, D), expert_rows(names_.expert_up, index, F, D)},
         2 * F, D, matrix_role::product, true);
  matrix(target.down_DF, {expert_rows(names_.expert_down, index, D, F)}, D, F,
         matrix_role::product);
}

// The tensor of that name and shape; otherwise the plan has failed and this is null.
const stored_tensor* planner::find(const std::string& name, std::vector<std::int64_t> shape) {
  if (failure_) return nullptr;
  if (format_ == load_format::dummy) {
    plan_.invented.push_back(std::make_unique<stored_tensor>());
    plan_.invented.back()->name = name;
    plan_.invented.back()->shape = std::move(shape);
    return plan_.invented.back().get();
  }
  const auto found = files_.tensors.find(name);
  if (found == files_.tensors.end()) {
    refuse({errc::bad_file,
            fmt::format("tensor '{}' {} is missing: the file is incomplete or its config is of "
                        "another model",
                        name, spelled(shape)),
            {}});
    return nullptr;
  }
  if (found->second.shape != shape) {
    refuse({errc::bad_file,
            fmt::format("tensor '{}' has the shape {}, the config wants {}", name,
                        spelled(found->second.shape), spelled(shape)),
            {}});
    return nullptr;
  }
  used_.insert(found->first);
  return &found->second;
}

row_part planner::matrix_rows(std::string_view name, std::int64_t rows, std::int64_t columns) {
  return {find(in_layer(name) + ".weight", {rows, columns}), 0, rows, {}};
}

row_part planner::vector_rows(const std::string& name, std::int64_t size) {
  return {find(name, {size}), 0, size, {}};
}

row_part planner::expert_rows(std::string_view name, std::int64_t index, std::int64_t rows,
                              std::int64_t columns) {
  if (name.find("{}") != std::string_view::npos)
    return matrix_rows(fmt::format(fmt::runtime(name), index), rows, columns);
  return {
      find(in_layer(name) + ".weight", {config_.experts, rows, columns}), index * rows, rows, {}};
}

void planner::matrix(packed_matrix& target, std::vector<row_part> parts, std::int64_t whole_rows,
                     std::int64_t columns, matrix_role role, bool gated) {
  if (failure_) return;
  matrix_load load{&target, gated, std::move(parts), whole_rows};
  target.columns = columns;
  for (const auto& part : load.parts) target.rows += part.rows;
  target.format = wanted_format(format_, role, load);
  if (!device_.can_pack(target.format, columns)) target.format = weight_format::bf16;
  if (!device_.can_pack(target.format, columns))
    return refuse({errc::unsupported,
                   fmt::format("tensor '{}' with {} columns cannot be packed for {}",
                               load.parts.front().tensor->name, columns, device_.name()),
                   {}});
  plan_.bytes += aligned(device_.packed_bytes(target.format, target.rows, columns));
  plan_.model->parameter_count += static_cast<std::uint64_t>(whole_rows * columns);
  plan_.matrices.push_back(std::move(load));
}

void planner::vector(const float*& target, std::vector<row_part> parts, std::int64_t whole_size,
                     float added, float invented) {
  if (failure_) return;
  vector_load load{&target, 0, added, 1.0F, invented, std::move(parts)};
  for (const auto& part : load.parts) {
    load.size += part.rows;
    const auto format = part.tensor->format;
    if (format != kernels::source_format::f32 && format != kernels::source_format::f16 &&
        format != kernels::source_format::bf16)
      return refuse({errc::unsupported,
                     fmt::format("tensor '{}' is quantized; norms and biases are read as F32, F16 "
                                 "or BF16",
                                 part.tensor->name),
                     {}});
  }
  plan_.bytes += aligned(static_cast<std::uint64_t>(load.size) * sizeof(float));
  plan_.model->parameter_count += static_cast<std::uint64_t>(whole_size);
  plan_.vectors.push_back(std::move(load));
}

void planner::norm(const float*& target, const std::string& name, std::int64_t size, float factor) {
  const float added = config_.norm_weight_plus_one ? 1.0F : 0.0F;
  vector(target, {vector_rows(name, size)}, size, added, 1.0F);
  if (!failure_) plan_.vectors.back().factor = factor;
}

void planner::name_precision() {
  constexpr std::array<std::string_view, 7> names{"f32",  "f16",  "bf16", "fp8",
                                                  "q8_0", "q4_0", "q4_1"};
  std::array<std::int64_t, names.size()> parameters{};
  for (const auto& load : plan_.matrices)
    parameters[static_cast<std::size_t>(load.target->format)] +=
        load.whole_rows * load.target->columns;
  const auto most = std::max_element(parameters.begin(), parameters.end());
  plan_.model->precision = names[static_cast<std::size_t>(most - parameters.begin())];
}

}  // namespace

result<load_plan> plan_load(const model_config& config, const tensor_set& files, load_format format,
                            const kernels::backend& device, tensor_rank place,
                            table_rows embedding) {
  const auto split = tensor_split::make(config, place);
  if (!split) return split.error();
  return planner(config, files, format, device, *split, embedding).run();
}

}  // namespace tandem::model
