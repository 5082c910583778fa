#include "runtime/train/serving_copy.hpp"

#include "runtime/train/named_tensors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <span>
#include <utility>

namespace tandem::train {

namespace {

using kernels::packed_matrix;

// Numbers converted in one piece.
constexpr std::int64_t repacked_numbers = std::int64_t{1} << 20;

result<std::unique_ptr<imagined_load>> imagine(const kernels::backend& device,
                                               const model::model_config& config,
                                               std::string_view format) {
  const auto known = model::load_format_from(format);
  if (!known || *known == model::load_format::native || *known == model::load_format::dummy)
    return error{errc::bad_request,
                 fmt::format("serve_format '{}' is none of f32, bf16, fp8, q8_0, q4_1", format),
                 "serve_format"};
  return imagine_load(device, config, *known);
}

}  // namespace

result<std::uint64_t> serving_copy::bytes(const kernels::backend& device,
                                          const model::model_config& config,
                                          std::string_view format) {
  const auto imagined = imagine(device, config, format);
  if (!imagined) return imagined.error();
  return 2 * (*imagined)->plan.bytes;
}

result<std::shared_ptr<model::weights>> reserve_weights(kernels::backend& device,
                                                        const std::shared_ptr<memory::ledger>& book,
                                                        const model::model_config& config,
                                                        std::string_view format, memory::owner who,
                                                        std::string_view what) {
  auto imagined = imagine(device, config, format);
  if (!imagined) return imagined.error();
  auto& plan = (*imagined)->plan;
  auto arena = memory::arena::reserve(*book, who, plan.bytes, what);
  if (!arena) return arena.error();
  auto& model = *plan.model;
  model.book = book;
  model.memory = std::move(*arena);
  for (const auto& load : plan.vectors)
    *load.target = reinterpret_cast<const float*>(
        model.memory.take(static_cast<std::size_t>(load.size) * sizeof(float)).data());
  for (const auto& load : plan.matrices) {
    auto& target = *load.target;
    target.data =
        model.memory.take(device.packed_bytes(target.format, target.rows, target.columns)).data();
  }
  if (model.config.tied_head) model.head_VD = model.embedding_VD;
  return plan.model;
}

result<std::unique_ptr<serving_copy>> serving_copy::reserve(
    kernels::backend& device, const std::shared_ptr<memory::ledger>& book,
    const model::model_config& config, std::string_view format) {
  auto made = std::unique_ptr<serving_copy>(new serving_copy());
  for (auto& copy : made->copies_) {
    auto reserved = reserve_weights(device, book, config, format, memory::owner::weights,
                                    fmt::format("a serving copy in {}", format));
    if (!reserved) return reserved.error();
    copy = *std::move(reserved);
    // Touched now, so that the first publication does not wait for the machine's pages.
    device.fill_zero(copy->memory.bytes());
  }
  return made;
}

result<std::shared_ptr<const model::weights>> serving_copy::write_one(
    kernels::backend& device, const std::shared_ptr<memory::ledger>& book,
    const model::weights& masters, std::string_view format, std::uint64_t version,
    const pause_point& pause) {
  serving_copy writer;
  auto reserved = reserve_weights(device, book, masters.config, format, memory::owner::weights,
                                  fmt::format("version {} in {}", version, format));
  if (!reserved) return reserved.error();
  writer.copies_[1] = *std::move(reserved);
  writer.written_ = 1;
  std::vector<piece> pieces;
  writer.plan_all(device, masters, version, pieces);
  for (const auto& run : pieces) {
    run();
    pause();
  }
  device.finish();
  return writer.newest();
}

result<void> serving_copy::plan(kernels::backend& device, const model::weights& masters,
                                std::uint64_t version, std::vector<piece>& pieces) {
  const auto idle = [&](std::size_t half) { return copies_[half].use_count() == 1; };
  const auto half = idle(1 - written_) ? 1 - written_ : written_;
  if (!idle(half))
    return error{errc::conflict,
                 fmt::format("both serving copies, versions {} and {}, are still in use: publish "
                             "again when a stream on the older one has ended",
                             copies_[1 - written_]->version, copies_[written_]->version),
                 ""};
  std::atomic_thread_fence(std::memory_order_acquire);  // after the last reader's release
  written_ = half;
  plan_all(device, masters, version, pieces);
  return {};
}

void serving_copy::plan_all(kernels::backend& device, const model::weights& masters,
                            std::uint64_t version, std::vector<piece>& pieces) {
  auto& to = *copies_[written_];
  const auto& from = masters;
  pieces.emplace_back([&from, &to, &device, version] {
    to.version = version;
    const auto& c = from.config;
    const auto vector = [&device](const float* source, const float* target, std::int64_t size) {
      if (source == nullptr) return;
      // The copy is ours alone until it is handed out.
      device.copy(std::as_bytes(std::span(source, static_cast<std::size_t>(size))),
                  reinterpret_cast<std::byte*>(const_cast<float*>(target)));
    };
    const std::int64_t H = c.head_size;
    vector(from.final_norm_D, to.final_norm_D, c.model_size);
    for (std::size_t l = 0; l < from.layers.size(); ++l) {
      const auto& f = from.layers[l];
      const auto& t = to.layers[l];
      vector(f.attention_norm_D, t.attention_norm_D, c.model_size);
      vector(f.post_attention_norm_D, t.post_attention_norm_D, c.model_size);
      vector(f.feed_forward_norm_D, t.feed_forward_norm_D, c.model_size);
      vector(f.post_feed_forward_norm_D, t.post_feed_forward_norm_D, c.model_size);
      vector(f.query_norm_H, t.query_norm_H, H);
      vector(f.key_norm_H, t.key_norm_H, H);
      vector(f.qkv_bias_X, t.qkv_bias_X, (c.query_heads + 2 * std::int64_t{c.key_heads}) * H);
      vector(f.output_bias_D, t.output_bias_D, c.model_size);
    }
  });
  const auto matrix = [&](const packed_matrix& source, const packed_matrix& target) {
    plan_matrix(device, source, target, pieces);
  };
  const auto gated = [&](const packed_matrix& source, const packed_matrix& target) {
    if (source.data == nullptr) return;
    matrix(device.gated_as_linear(source), device.gated_as_linear(target));
  };
  matrix(from.embedding_VD, to.embedding_VD);
  if (!from.config.tied_head) matrix(from.head_VD, to.head_VD);
  for (std::size_t l = 0; l < from.layers.size(); ++l) {
    const auto& f = from.layers[l];
    const auto& t = to.layers[l];
    matrix(f.qkv_XD, t.qkv_XD);
    matrix(f.output_DX, t.output_DX);
    gated(f.gate_up_FD, t.gate_up_FD);
    matrix(f.down_DF, t.down_DF);
    matrix(f.router_ED, t.router_ED);
    for (std::size_t e = 0; e < f.experts.size(); ++e) {
      gated(f.experts[e].gate_up_FD, t.experts[e].gate_up_FD);
      matrix(f.experts[e].down_DF, t.experts[e].down_DF);
    }
  }
}

void serving_copy::plan_matrix(kernels::backend& device, const packed_matrix& from,
                               const packed_matrix& to, std::vector<piece>& pieces) {
  if (from.data == nullptr) return;
  ensure(from.rows == to.rows && from.columns == to.columns, "copies of the masters' shapes");
  // Whole panels, so that pieces write apart.
  const auto rows = std::max<std::int64_t>(16, repacked_numbers / from.columns / 16 * 16);
  for (std::int64_t first = 0; first < from.rows; first += rows)
    pieces.emplace_back([&device, from, to, first, count = std::min(rows, from.rows - first)] {
      device.repack(from, first, count, to);
    });
}

}  // namespace tandem::train
