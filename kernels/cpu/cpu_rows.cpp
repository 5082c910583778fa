// What is done to each row by itself: norms, routing, gathering.
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/ensure.hpp"

#include <algorithm>
#include <cmath>

namespace tandem::kernels::cpu {

void cpu_device::rms_norm(rows_in x_TD, const float* w_D, float eps, rows_out y_TD) {
  ensure(x_TD.rows == y_TD.rows && x_TD.columns == y_TD.columns, "rows in as rows out");
  for_rows(x_TD.rows, [&](std::int64_t t) {
    table_.rms_norm(x_TD.row(t), w_D, eps, x_TD.columns, false, y_TD.row(t));
  });
}

void cpu_device::add_rms_norm(rows_in h_TD, const float* w_D, float eps, rows_out x_TD) {
  ensure(h_TD.rows == x_TD.rows && h_TD.columns == x_TD.columns, "rows in as rows out");
  for_rows(h_TD.rows, [&](std::int64_t t) {
    table_.rms_norm(h_TD.row(t), w_D, eps, h_TD.columns, true, x_TD.row(t));
  });
}

void cpu_device::moe_route(rows_in logits_TE, bool normalize, const moe_routes& routes) {
  ensure(routes.count > 0 && routes.count <= logits_TE.columns, "experts to choose from");
  for_rows(logits_TE.rows, [&](std::int64_t t) {
    const float* logits = logits_TE.row(t);
    const std::int64_t experts = logits_TE.columns;
    std::int32_t* ids = routes.ids + t * routes.count;
    float* weights = routes.weights + t * routes.count;
    // Kept sorted by logit; an equal one goes behind, so ties fall to the smaller id.
    std::int64_t kept = 0;
    for (std::int64_t e = 0; e < experts; ++e) {
      std::int64_t at = kept;
      while (at > 0 && logits[e] > logits[ids[at - 1]]) --at;
      if (at == routes.count) continue;
      kept = std::min<std::int64_t>(kept + 1, routes.count);
      std::copy_backward(ids + at, ids + kept - 1, ids + kept);
      ids[at] = static_cast<std::int32_t>(e);
    }
    const float largest = logits[ids[0]];
    float chosen = 0.0F;
    for (std::int64_t j = 0; j < routes.count; ++j) {
      weights[j] = std::exp(logits[ids[j]] - largest);
      chosen += weights[j];
    }
    float sum = chosen;
    if (!normalize) {
      sum = 0.0F;
      for (std::int64_t e = 0; e < experts; ++e) sum += std::exp(logits[e] - largest);
    }
    for (std::int64_t j = 0; j < routes.count; ++j) weights[j] /= sum;
  });
}

void cpu_device::gather_rows(rows_in x_TD, std::span<const std::int32_t> rows, rows_out y_BD) {
  ensure(std::ssize(rows) == y_BD.rows && x_TD.columns == y_BD.columns, "one row for each index");
  for_rows(y_BD.rows, [&](std::int64_t b) {
    std::copy_n(x_TD.row(rows[static_cast<std::size_t>(b)]), y_BD.columns, y_BD.row(b));
  });
}

}  // namespace tandem::kernels::cpu
