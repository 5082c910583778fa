#include "runtime/train/rank_exchange.hpp"

#include <algorithm>
#include <numeric>

namespace tandem::train {
namespace {

using kernels::packed_matrix;
using kernels::rows_in;
using kernels::rows_out;
using model::output_range;

model::tensor_split split_for(const model::model_config& config, const kernels::collective* ranks) {
  model::tensor_rank place;
  if (ranks != nullptr) place = {ranks->rank(), ranks->size()};
  auto split = model::tensor_split::make(config, place);
  ensure(split.has_value(), "a model that can be split");
  return *std::move(split);
}

// Bytes of a matrix's first rows, up to a whole panel.
std::size_t bytes_of(const kernels::backend& device, const packed_matrix& like, std::int64_t rows,
                     std::byte* anywhere) {
  constexpr std::int64_t panel = 16;
  const packed_matrix one{like.format, panel, like.columns, anywhere};
  const auto panels = static_cast<std::size_t>((rows + panel - 1) / panel);
  return panels * static_cast<std::size_t>(device.rows_of(one, panel, 0).data - anywhere);
}

}  // namespace

rank_exchange::rank_exchange(kernels::backend& device, const model::model_config& config,
                             kernels::collective* ranks)
    : device_(device),
      ranks_(ranks),
      split_(split_for(config, ranks)),
      head_size_(config.head_size),
      query_heads_(config.query_heads),
      key_heads_(config.key_heads) {
  std::int64_t next_key = 0;
  for (const auto& part : split_.parts) {
    const bool first = part.key_heads.first == next_key;
    own_key_heads_ = own_key_heads_ && first;
    if (first) next_key += part.key_heads.count;
    query_.push_back(part.query_heads.count);
    key_.push_back(first ? part.key_heads.count : 0);
    query_columns_.push_back(query_.back() * head_size_);
    key_columns_.push_back(key_.back() * head_size_);
    model_.push_back(part.model.count);
    hidden_.push_back(part.hidden.count);
    gate_up_.push_back(model::gate_up_columns(part.hidden.count));
  }
}

std::int64_t rank_exchange::qkv_columns() const {
  return (own().query_heads.count + 2 * own().key_heads.count) * head_size_;
}

std::vector<output_range> rank_exchange::qkv_parts() const {
  const auto of_heads = [&](std::int64_t before, output_range heads) {
    return output_range{(before + heads.first) * head_size_, heads.count * head_size_};
  };
  return {of_heads(0, own().query_heads), of_heads(query_heads_, own().key_heads),
          of_heads(query_heads_ + key_heads_, own().key_heads)};
}

void rank_exchange::gather(rows_out whole, output_range mine, const counts& columns) const {
  if (!alone()) ranks_->gather_columns(columns_of(whole, mine), columns, whole);
}

void rank_exchange::gather_heads(rows_out whole_TNH) const {
  gather(whole_TNH, qkv_parts().front(), query_columns_);
}
void rank_exchange::gather_model(rows_out whole_TD) const { gather(whole_TD, own().model, model_); }
void rank_exchange::gather_hidden(rows_out whole_TF) const {
  gather(whole_TF, own().hidden, hidden_);
}

// In the piece: from its first column on.
output_range rank_exchange::own_logits(std::int64_t first_id, std::int64_t columns) const {
  const auto& mine = own().vocabulary;
  const auto begin = std::clamp(mine.first - first_id, std::int64_t{0}, columns);
  const auto end = std::clamp(mine.first + mine.count - first_id, std::int64_t{0}, columns);
  return {begin, end - begin};
}

void rank_exchange::gather_logits(rows_out logits_BP, std::int64_t first_id) const {
  if (alone()) return;
  const auto sections = head_rows(first_id, logits_BP.columns);
  gather(logits_BP, own_logits(first_id, logits_BP.columns), sections.front().rows_R);
}

void rank_exchange::gather_gate_up(rows_in own_TG, rows_out whole_TF2) const {
  ranks_->gather_columns(own_TG, gate_up_, whole_TF2);
}

void rank_exchange::gather_qkv(rows_in own_TX, rows_out whole_TX) const {
  const auto queries = own().query_heads.count * head_size_;
  const auto keys = of(key_columns_, rank());  // none where another rank gives them
  const auto own_keys = own().key_heads.count * head_size_;
  const auto all_queries = query_heads_ * head_size_;
  const auto all_keys = key_heads_ * head_size_;
  ranks_->gather_columns(columns_of(own_TX, {0, queries}), query_columns_,
                         columns_of(whole_TX, {0, all_queries}));
  ranks_->gather_columns(columns_of(own_TX, {queries, keys}), key_columns_,
                         columns_of(whole_TX, {all_queries, all_keys}));
  ranks_->gather_columns(columns_of(own_TX, {queries + own_keys, keys}), key_columns_,
                         columns_of(whole_TX, {all_queries + all_keys, all_keys}));
}

void rank_exchange::gather_lse(const float* own_TN, std::int64_t rows, float* whole_TN) const {
  ranks_->gather_columns({own_TN, rows, of(query_, rank())}, query_,
                         {whole_TN, rows, query_heads_});
}

void rank_exchange::take_qkv(rows_in whole_TX, rows_out own_TX) const {
  std::int64_t at = 0;
  for (const auto& part : qkv_parts()) {
    device_.copy_rows(columns_of(whole_TX, part), columns_of(own_TX, {at, part.count}));
    at += part.count;
  }
}

output_range rank_exchange::share_of(std::int64_t rows) const {
  const auto start = [&](std::int64_t rank) { return rows * rank / split_.place.ranks; };
  return {start(rank()), start(rank() + 1) - start(rank())};
}

void rank_exchange::gather_rows(rows_out x_TX) const {
  if (alone()) return;
  ensure(x_TX.stride == x_TX.columns, "rows without gaps");
  counts floats;
  for (std::int64_t rank = 0; rank < split_.place.ranks; ++rank)
    floats.push_back(
        (x_TX.rows * (rank + 1) / split_.place.ranks - x_TX.rows * rank / split_.place.ranks) *
        x_TX.columns);
  const auto mine = share_of(x_TX.rows);
  gather({x_TX.data, 1, x_TX.rows * x_TX.columns},
         {mine.first * x_TX.columns, mine.count * x_TX.columns}, floats);
}

std::vector<row_section> rank_exchange::model_rows() const { return {{0, model_, 0}}; }
std::vector<row_section> rank_exchange::gate_up_rows() const { return {{0, gate_up_, 0}}; }

std::vector<row_section> rank_exchange::qkv_rows() const {
  const auto queries = own().query_heads.count * head_size_;
  const auto keys = own().key_heads.count * head_size_;
  return {{0, query_columns_, 0},
          {query_heads_ * head_size_, key_columns_, queries},
          {(query_heads_ + key_heads_) * head_size_, key_columns_, queries + keys}};
}

std::vector<row_section> rank_exchange::head_rows(std::int64_t first_id,
                                                  std::int64_t columns) const {
  row_section section;
  for (const auto& part : split_.parts) {
    const auto begin = std::max(part.vocabulary.first, first_id);
    const auto end = std::min(part.vocabulary.first + part.vocabulary.count, first_id + columns);
    section.rows_R.push_back(std::max<std::int64_t>(0, end - begin));
  }
  section.own_first = std::max<std::int64_t>(0, first_id - own().vocabulary.first);
  return {section};
}

packed_matrix rank_exchange::whole_of(const packed_matrix& own,
                                      const std::vector<row_section>& sections,
                                      std::int64_t whole_rows, std::span<std::byte> room) const {
  const auto bytes = device_.packed_bytes(own.format, whole_rows, own.columns);
  ensure(bytes <= room.size(), "room for a whole matrix");
  const packed_matrix whole{own.format, whole_rows, own.columns, room.data()};
  const auto floats = [&](std::int64_t rows) {
    const auto size = bytes_of(device_, own, rows, room.data());
    ensure(size % sizeof(float) == 0, "panels of whole floats");
    return static_cast<std::int64_t>(size / sizeof(float));
  };
  const auto filled = static_cast<std::size_t>(floats(whole_rows)) * sizeof(float);
  if (filled < bytes) device_.fill_zero(room.subspan(filled, bytes - filled));
  for (const auto& section : sections) {
    counts each;
    for (const auto rows : section.rows_R) each.push_back(floats(rows));
    const auto all = std::accumulate(each.begin(), each.end(), std::int64_t{0});
    const auto mine = of(each, rank());
    const auto* const from =
        mine == 0 ? nullptr : reinterpret_cast<const float*>(own.data) + floats(section.own_first);
    ranks_->gather_columns(
        {from, 1, mine}, each,
        {reinterpret_cast<float*>(room.data()) + floats(section.whole_first), 1, all});
  }
  return whole;
}

void rank_exchange::whole_floats(const rank_layout& layout, std::size_t first, std::size_t count,
                                 const float* own_arena, float* into) const {
  const auto runs = layout.runs_once(first, count);
  std::size_t next = first;
  for (auto run = runs.begin(); run != runs.end();) {
    if (run->whole > next)
      device_.fill_zero(
          std::as_writable_bytes(std::span(into + (next - first), run->whole - next)));
    // Adjacent runs of ranks in their order come at once.
    counts each(split_.parts.size(), 0);
    const auto begin = run->whole;
    std::size_t own = 0;
    next = begin;
    for (int before = -1; run != runs.end() && run->whole == next && run->rank > before; ++run) {
      each[static_cast<std::size_t>(run->rank)] = static_cast<std::int64_t>(run->floats);
      if (run->rank == rank()) own = run->own;
      before = run->rank;
      next += run->floats;
    }
    ranks_->gather_columns({own_arena + own, 1, of(each, rank())}, each,
                           {into + (begin - first), 1, static_cast<std::int64_t>(next - begin)});
  }
  if (next < first + count)
    device_.fill_zero(
        std::as_writable_bytes(std::span(into + (next - first), first + count - next)));
}

}  // namespace tandem::train
