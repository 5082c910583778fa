// What is done to each row by itself: norms, routing, gathering.
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/op_checks.hpp"

#include <algorithm>
#include <cmath>

namespace tandem::kernels::cpu {

void cpu_device::rms_norm(rows_in x_TD, const float* w_D, float eps, rows_out y_TD) {
  require(checks::rms_norm(x_TD, y_TD));
  for_rows(x_TD.rows, [&](std::int64_t t) {
    table_.rms_norm(x_TD.row(t), w_D, eps, x_TD.columns, false, y_TD.row(t));
  });
}

void cpu_device::add_rms_norm(rows_in h_TD, const float* w_D, float eps, rows_out x_TD) {
  require(checks::add_rms_norm(h_TD, x_TD));
  for_rows(h_TD.rows, [&](std::int64_t t) {
    table_.rms_norm(h_TD.row(t), w_D, eps, h_TD.columns, true, x_TD.row(t));
  });
}

void cpu_device::moe_route(rows_in logits_TE, bool normalize, const moe_routes& routes) {
  require(checks::moe_route(logits_TE, routes));
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
  require(checks::gather_rows(x_TD, rows, y_BD));
  for_rows(y_BD.rows, [&](std::int64_t b) {
    std::copy_n(x_TD.row(rows[static_cast<std::size_t>(b)]), y_BD.columns, y_BD.row(b));
  });
}

}  // namespace tandem::kernels::cpu
