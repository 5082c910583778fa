#include "runtime/train/rank_layout.hpp"

#include "runtime/train/named_tensors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <tuple>

namespace tandem::train {
namespace {

constexpr std::int64_t panel = 16;  // outputs: see packed_matrix

std::int64_t whole_panels(std::int64_t rows) { return (rows + panel - 1) / panel * panel; }

// At which of the parts' rows, one after the other, a file's row stands.
std::int64_t place_of(const std::vector<model::row_part>& parts, const model::row_part& what) {
  std::int64_t at = 0;
  for (const auto& part : parts) {
    if (part.tensor->name == what.tensor->name && what.first_row >= part.first_row &&
        what.first_row + what.rows <= part.first_row + part.rows)
      return at + what.first_row - part.first_row;
    at += part.rows;
  }
  ensure(false, "rows of the same tensors");
  return 0;
}

class mapper {
 public:
  mapper(const imagined_load& whole, const imagined_load& own, rank_layout& layout, int rank)
      : whole_(whole.plan), own_(own.plan), layout_(layout), rank_(rank) {}

  // False: rows that are no whole panels.
  bool add() {
    std::size_t tensor = 0;
    for (std::size_t i = 0; i < own_.vectors.size(); ++i, ++tensor)
      if (!add_parts(tensor, whole_.vectors[i].parts, own_.vectors[i].parts, {})) return false;
    for (std::size_t i = 0; i < own_.matrices.size(); ++i, ++tensor) {
      const auto& load = own_.matrices[i];
      const auto columns = load.target->columns;
      if (load.gated)
        add_gated(tensor, whole_.matrices[i].parts.front(), load.parts.front(), columns);
      else if (!add_parts(tensor, whole_.matrices[i].parts, load.parts, columns))
        return false;
    }
    return true;
  }

 private:
  void add_run(std::size_t tensor, std::int64_t whole, std::int64_t own, std::int64_t floats) {
    if (floats == 0) return;
    const auto rank = static_cast<std::size_t>(rank_);
    layout_.held.push_back(
        {layout_.whole[tensor].first_float + static_cast<std::size_t>(whole),
         layout_.of_rank[rank][tensor].first_float + static_cast<std::size_t>(own),
         static_cast<std::size_t>(floats), rank_});
  }

  // `columns`: of a matrix.
  bool add_parts(std::size_t tensor, const std::vector<model::row_part>& all,
                 const std::vector<model::row_part>& parts, std::optional<std::int64_t> columns) {
    std::int64_t own = 0;
    for (const auto& part : parts) {
      const auto whole = place_of(all, part);
      if (columns && (whole % panel != 0 || own % panel != 0)) return false;
      const auto rows = columns ? whole_panels(part.rows) * *columns : part.rows;
      add_run(tensor, whole * columns.value_or(1), own * columns.value_or(1), rows);
      own += part.rows;
    }
    return true;
  }

  // Panels of gate and up alternate.
  void add_gated(std::size_t tensor, const model::row_part& all, const model::row_part& gate,
                 std::int64_t columns) {
    add_run(tensor, 2 * (gate.first_row - all.first_row) * columns, 0,
            2 * whole_panels(gate.rows) * columns);
  }

  const model::load_plan& whole_;
  const model::load_plan& own_;
  rank_layout& layout_;
  int rank_;
};

}  // namespace

result<rank_layout> rank_layout::make(const kernels::backend& device,
                                      const model::model_config& config, int ranks) {
  rank_layout layout;
  auto one = parameter_layout::make(device, config);
  if (!one) return one.error();
  layout.whole = std::move(one->parameters);
  const auto whole = imagine_load(device, config, model::load_format::f32);
  if (!whole) return whole.error();
  for (int rank = 0; rank < ranks; ++rank) {
    const model::tensor_rank place{rank, ranks};
    auto part = parameter_layout::make(device, config, place);
    if (!part) return part.error();
    layout.of_rank.push_back(std::move(part->parameters));
    const auto own =
        imagine_load(device, config, model::load_format::f32, place, model::table_rows::own);
    if (!own) return own.error();
    if (!mapper(**whole, **own, layout, rank).add())
      return error{errc::unsupported,
                   fmt::format("heads of {} numbers are not trained on devices that hold a model "
                               "together: a head's must be a multiple of {}",
                               config.head_size, panel),
                   "model.tensor_parallel"};
  }
  std::sort(layout.held.begin(), layout.held.end(), [](const rank_run& a, const rank_run& b) {
    return std::tie(a.whole, a.rank) < std::tie(b.whole, b.rank);
  });
  return layout;
}

std::vector<rank_run> rank_layout::runs(std::size_t first, std::size_t count) const {
  std::vector<rank_run> list;
  for (const auto& run : held) {
    if (run.whole >= first + count) break;
    const auto begin = std::max(first, run.whole);
    const auto end = std::min(first + count, run.whole + run.floats);
    if (begin < end) list.push_back({begin, run.own + (begin - run.whole), end - begin, run.rank});
  }
  return list;
}

std::vector<rank_run> rank_layout::runs_once(std::size_t first, std::size_t count) const {
  auto list = runs(first, count);
  const auto same = [](const rank_run& a, const rank_run& b) { return a.whole == b.whole; };
  list.erase(std::unique(list.begin(), list.end(), same), list.end());
  return list;
}

std::size_t rank_layout::floats() const {
  return whole.empty() ? 0 : whole.back().first_float + whole.back().floats;
}

}  // namespace tandem::train
