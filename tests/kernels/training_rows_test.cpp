#include "tests/kernels/differences.hpp"

#include <catch2/catch.hpp>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

// Of T rows of D: x / sqrt(mean(x^2) + eps) * w.
doubles true_norm(const doubles& x, const doubles& w, double eps) {
  const std::size_t D = w.size();
  doubles y(x.size());
  for (std::size_t t = 0; t < x.size() / D; ++t) {
    double squares = 0.0;
    for (std::size_t i = 0; i < D; ++i) squares += x[t * D + i] * x[t * D + i];
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(D) + eps);
    for (std::size_t i = 0; i < D; ++i) y[t * D + i] = x[t * D + i] * inverse * w[i];
  }
  return y;
}

double activated(activation act, double x) {
  if (act == activation::silu) return x / (1.0 + std::exp(-x));
  return 0.5 * x * (1.0 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

}  // namespace

TEST_CASE("rms_norm's gradients are its central differences in odd sizes") {
  for (const std::int64_t D : {1, 31, 33, 130}) {
    const std::int64_t T = 7;
    randoms random(41);
    const floats x = random.values(T * D, 2.0F), w = random.values(D), dy = random.values(T * D);
    const doubles wide_x = widened(x), wide_w = widened(w);
    const double eps = 1e-3F;
    exactness dx_exact(
        differences(wide_x, dy, [&](const doubles& v) { return true_norm(v, wide_w, eps); }));
    exactness dw_exact(
        differences(wide_w, dy, [&](const doubles& v) { return true_norm(wide_x, v, eps); }));
    const std::vector<row_segment> slots{{0, 2}, {2, 0}, {2, 4}, {6, 1}};
    for (const auto set : cpu::supported_instruction_sets()) {
      INFO(name_of(set) << " D=" << D);
      floats first;
      for (const int threads : {1, 2}) {
        test_device device(set, threads, training_limits());
        floats dx(x.size(), -7.0F), dw(w.size(), 0.0F);
        device->rms_norm_backward({dy.data(), T, D}, {x.data(), T, D}, w.data(), 1e-3F, slots,
                                  false, {dx.data(), T, D}, dw.data());
        CHECK(dx_exact.holds(set, dx));
        CHECK(dw_exact.holds(set, dw));
        // Added, in place of dy, and without a weight gradient.
        floats added(x.size(), 0.5F), in_place = dy;
        device->rms_norm_backward({dy.data(), T, D}, {x.data(), T, D}, w.data(), 1e-3F, slots, true,
                                  {added.data(), T, D}, nullptr);
        device->rms_norm_backward({in_place.data(), T, D}, {x.data(), T, D}, w.data(), 1e-3F, slots,
                                  false, {in_place.data(), T, D}, nullptr);
        CHECK(in_place == dx);
        for (std::size_t i = 0; i < dx.size(); ++i) REQUIRE(added[i] == 0.5F + dx[i]);
        if (threads == 1) first = dw;
        CHECK(dw == first);
      }
    }
  }
}

TEST_CASE("a gated activation and its gradients, F not a multiple of sixteen, padding made zero") {
  for (const activation act : {activation::silu, activation::gelu_tanh}) {
    for (const std::int64_t F : {1, 15, 16, 33}) {
      const std::int64_t T = 5, padded = (F + 15) / 16 * 16;
      randoms random(42);
      const floats gate_up = random.values(T * 2 * padded, 4.0F), dy = random.values(T * F);
      const auto gate_at = [&](std::int64_t t, std::int64_t i) {
        return static_cast<std::size_t>(t * 2 * padded + i / 16 * 32 + i % 16);
      };
      const auto forward = [&](const doubles& v) {
        doubles y;
        for (std::int64_t t = 0; t < T; ++t) {
          for (std::int64_t i = 0; i < F; ++i) {
            y.push_back(activated(act, v[gate_at(t, i)]) * v[gate_at(t, i) + 16]);
          }
        }
        return y;
      };
      exactness y_exact(forward(widened(gate_up)));
      exactness d_exact(differences(widened(gate_up), dy, forward));
      for (const auto set : cpu::supported_instruction_sets()) {
        INFO(name_of(set) << " F=" << F);
        test_device device(set, 2, training_limits());
        floats y(static_cast<std::size_t>(T * F), -7.0F), d = gate_up;
        device->activate_gated({gate_up.data(), T, 2 * padded}, act, {y.data(), T, F});
        CHECK(y_exact.holds(set, y));
        device->activate_gated_backward({dy.data(), T, F}, act, {d.data(), T, 2 * padded});
        CHECK(d_exact.holds(set, d));
        for (std::int64_t t = 0; t < T; ++t) {
          for (std::int64_t i = F; i < padded; ++i) {
            REQUIRE(d[gate_at(t, i)] == 0.0F);
            REQUIRE(d[gate_at(t, i) + 16] == 0.0F);
          }
        }
      }
    }
  }
}

TEST_CASE("rope is rope_store without a cache, and its gradients are its central differences") {
  const int N = 3, K = 1;
  for (const int H : {8, 16, 40}) {
    for (const bool normed : {false, true}) {
      const int R = H == 40 ? 16 : H;
      const std::int64_t T = 4, X = (N + 2 * K) * H;
      randoms random(43);
      const floats qkv = random.values(T * X), d_out = random.values(T * X);
      const floats q_norm = random.values(H), k_norm = random.values(H);
      floats angles(static_cast<std::size_t>(T * R));
      test_device any(cpu::instruction_set::reference, 1, training_limits());
      floats frequency;
      for (int i = 0; i < R / 2; ++i) frequency.push_back(1.0F / static_cast<float>(1 + i));
      any->rope_angles(std::vector<std::int32_t>{0, 3, 4, 9}, frequency, 1.0F, angles.data());

      const auto forward = [&](const doubles& x, const doubles& qn, const doubles& kn) {
        doubles y = x;
        for (std::int64_t t = 0; t < T; ++t) {
          for (int n = 0; n < N + K; ++n) {
            const auto at = static_cast<std::size_t>(t * X + n * H);
            doubles head(x.begin() + static_cast<std::ptrdiff_t>(at),
                         x.begin() + static_cast<std::ptrdiff_t>(at) + H);
            if (normed) head = true_norm(head, n < N ? qn : kn, 1e-3F);
            for (std::size_t i = 0; i < static_cast<std::size_t>(H); ++i) y[at + i] = head[i];
            for (std::size_t i = 0; i < static_cast<std::size_t>(R / 2); ++i) {
              const auto angle = static_cast<std::size_t>(t * R) + i;
              const auto half = static_cast<std::size_t>(R / 2);
              const double c = double{angles[angle]}, s = double{angles[angle + half]};
              y[at + i] = head[i] * c - head[half + i] * s;
              y[at + half + i] = head[half + i] * c + head[i] * s;
            }
          }
        }
        return y;
      };
      const doubles x = widened(qkv), qn = widened(q_norm), kn = widened(k_norm);
      exactness y_exact(forward(x, qn, kn));
      exactness d_exact(
          differences(x, d_out, [&](const doubles& v) { return forward(v, qn, kn); }));
      exactness q_exact(
          differences(qn, d_out, [&](const doubles& v) { return forward(x, v, kn); }));
      exactness k_exact(
          differences(kn, d_out, [&](const doubles& v) { return forward(x, qn, v); }));
      const std::vector<row_segment> slots{{0, 3}, {3, 1}};
      for (const auto set : cpu::supported_instruction_sets()) {
        INFO(name_of(set) << " H=" << H << " normed " << normed);
        test_device device(set, 2, training_limits());
        const float* q = normed ? q_norm.data() : nullptr;
        const float* k = normed ? k_norm.data() : nullptr;
        const rope_step step{R, angles.data()};
        floats y(qkv.size()), in_place = qkv;
        device->rope({qkv.data(), T, X}, N, K, H, step, q, k, 1e-3F, {y.data(), T, X});
        device->rope({in_place.data(), T, X}, N, K, H, step, q, k, 1e-3F, {in_place.data(), T, X});
        CHECK(y_exact.holds(set, y));
        CHECK(y == in_place);

        floats d = d_out;
        floats dq(static_cast<std::size_t>(H), 0.0F), dk = dq;
        device->rope_backward({qkv.data(), T, X}, N, K, H, step, q, k, 1e-3F, slots,
                              {d.data(), T, X}, dq.data(), dk.data());
        CHECK(d_exact.holds(set, d));
        if (!normed) continue;
        CHECK(q_exact.holds(set, dq));
        CHECK(k_exact.holds(set, dk));
      }
    }
  }
}

TEST_CASE("cross entropy in pieces is cross entropy at once, and its gradient the differences") {
  const std::int64_t B = 6, V = 101;
  randoms random(44);
  floats logits = random.values(B * V, 6.0F);
  logits[7] = logits[90] = 9.0F;  // row 0: a tie goes to the smaller id
  const std::vector<std::int32_t> targets{90, 0, 100, 33, 64, 5};
  const floats scale = random.values(B);
  const auto losses = [&](const doubles& v) {
    doubles loss;
    for (std::size_t b = 0; b < B; ++b) {
      double most = -1e9, sum = 0.0;
      for (std::size_t i = 0; i < V; ++i) most = std::max(most, v[b * V + i]);
      for (std::size_t i = 0; i < V; ++i) sum += std::exp(v[b * V + i] - most);
      loss.push_back(most + std::log(sum) - v[b * V + static_cast<std::size_t>(targets[b])]);
    }
    return loss;
  };
  exactness loss_exact(losses(widened(logits)));
  exactness d_exact(differences(widened(logits), scale, losses));
  for (const auto set : cpu::supported_instruction_sets()) {
    for (const std::int64_t piece : {101, 64, 33, 1}) {
      INFO(name_of(set) << " piece " << piece);
      test_device device(set, 2, training_limits());
      std::vector<cross_entropy_row> rows(static_cast<std::size_t>(B));
      for (std::size_t b = 0; b < B; ++b) rows[b].target = targets[b];
      floats d = logits;
      const auto pieces = [&](auto&& f) {
        for (std::int64_t first = 0; first < V; first += piece) {
          f(rows_out{d.data() + first, B, std::min(piece, V - first), V},
            static_cast<std::int32_t>(first));
        }
      };
      pieces([&](rows_out part, std::int32_t first) {
        device->cross_entropy_observe(part, first, rows);
      });
      floats loss;
      for (std::size_t b = 0; b < B; ++b) {
        loss.push_back(rows[b].maximum + std::log(rows[b].sum) - rows[b].target_logit);
        const auto row = logits.begin() + static_cast<std::ptrdiff_t>(b * V);
        CHECK(rows[b].best == std::max_element(row, row + V) - row);
      }
      CHECK(loss_exact.holds(set, loss));
      pieces([&](rows_out part, std::int32_t first) {
        device->cross_entropy_backward(part, first, rows, scale);
      });
      CHECK(d_exact.holds(set, d));
    }
  }
}

TEST_CASE("a logit that is not a number makes the loss one") {
  for (const auto set : cpu::supported_instruction_sets()) {
    test_device device(set, 1, training_limits());
    for (const std::size_t where : {0U, 17U, 39U}) {
      floats logits(40, 1.0F);
      logits[where] = NAN;
      std::vector<cross_entropy_row> rows(1);
      device->cross_entropy_observe({logits.data(), 1, 40}, 0, rows);
      CHECK(std::isnan(rows[0].sum));
    }
  }
}

TEST_CASE("AdamW steps as PyTorch's formula in float64 does") {
  const std::int64_t count = 5001;
  randoms random(45);
  const floats w = random.values(count), g = random.values(count, 0.1F);
  for (const float decay : {0.0F, 0.1F}) {
    const adamw_step base{.learning_rate = 1e-2F, .weight_decay = decay, .gradient_scale = 0.5F};
    doubles true_w = widened(w), true_m(true_w.size(), 0.0), true_v(true_w.size(), 0.0);
    for (std::int64_t step = 1; step <= 3; ++step) {
      for (std::size_t i = 0; i < true_w.size(); ++i) {
        const double d = double{g[i]} * 0.5 * static_cast<double>(step);
        true_w[i] *= 1.0 - double{base.learning_rate} * double{decay};
        true_m[i] += (1.0 - double{base.beta1}) * (d - true_m[i]);
        true_v[i] = double{base.beta2} * true_v[i] + (1.0 - double{base.beta2}) * d * d;
        const double m = true_m[i] / (1.0 - std::pow(double{base.beta1}, step));
        const double v = true_v[i] / (1.0 - std::pow(double{base.beta2}, step));
        true_w[i] -= double{base.learning_rate} * m / (std::sqrt(v) + double{base.eps});
      }
    }
    exactness w_exact(true_w), m_exact(true_m), v_exact(true_v);
    for (const auto set : cpu::supported_instruction_sets()) {
      floats first;
      for (const int threads : {1, 2}) {
        INFO(name_of(set) << " threads " << threads << " decay " << decay);
        test_device device(set, threads, training_limits());
        floats got = w, m(w.size(), 0.0F), v(w.size(), 0.0F);
        for (std::int64_t step = 1; step <= 3; ++step) {
          adamw_step how = base;
          how.step = step;
          how.gradient_scale *= static_cast<float>(step);
          device->adamw(how, g.data(), count, got.data(), m.data(), v.data());
        }
        CHECK(w_exact.holds(set, got));
        CHECK(m_exact.holds(set, m));
        CHECK(v_exact.holds(set, v));
        if (threads == 1) first = got;
        CHECK(got == first);
      }
    }
  }
}

TEST_CASE("the sum of squares is the same on any number of threads, and not finite when one is") {
  randoms random(46);
  for (const std::int64_t count : {0, 1, 31, 65'536, 300'001}) {
    floats x = random.values(count, 3.0F);
    double truth = 0.0;
    for (const float v : x) truth += double{v} * double{v};
    for (const auto set : cpu::supported_instruction_sets()) {
      INFO(name_of(set) << " of " << count);
      test_device one(set, 1, training_limits()), three(set, 3, training_limits());
      const double sum = one->sum_of_squares(x.data(), count);
      CHECK(sum == Approx(truth).epsilon(1e-12));
      CHECK(sum == three->sum_of_squares(x.data(), count));
    }
    if (count == 0) continue;
    for (const float bad : {NAN, INFINITY}) {
      x.back() = bad;
      test_device device(cpu::best_instruction_set(), 2, training_limits());
      CHECK_FALSE(std::isfinite(device->sum_of_squares(x.data(), count)));
    }
  }
}

TEST_CASE("an embedding's gradient adds each row to its id's, repeated ids in order") {
  const std::int64_t V = 37, D = 19;
  randoms random(47);
  const std::vector<std::int32_t> ids{5, 36, 5, 0, 5, 17};
  const floats dx = random.values(6 * D), before = random.values(V * D);
  floats expected = before;
  for (std::size_t t = 0; t < ids.size(); ++t) {
    for (std::size_t i = 0; i < D; ++i) {
      expected[static_cast<std::size_t>(ids[t]) * D + i] += 3.0F * dx[t * D + i];
    }
  }
  for (const auto set : cpu::supported_instruction_sets()) {
    for (const int threads : {1, 3}) {
      test_device device(set, threads, training_limits());
      const packed_matrix table = device.packed(weight_format::f32, V, D, before);
      device->embed_backward({dx.data(), 6, D}, ids, 3.0F, table);
      CHECK(device.unpacked(table) == expected);
    }
  }
}

TEST_CASE("rows and arrays are scaled, added, scattered and zeroed") {
  randoms random(48);
  const std::int64_t T = 9, D = 35;
  const floats x = random.values(T * D), y = random.values(T * D);
  for (const auto set : cpu::supported_instruction_sets()) {
    test_device device(set, 2, training_limits());
    floats got = x;
    device->add_rows({y.data(), T, D}, {got.data(), T, D});
    for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(got[i] == x[i] + y[i]);
    got = x;
    device->scale_rows(0.3F, {got.data(), T, D});
    for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(got[i] == x[i] * 0.3F);
    got = x;
    device->scatter_add_rows({y.data(), 2, D}, std::vector<std::int32_t>{7, 1}, {got.data(), T, D});
    for (std::size_t i = 0; i < D; ++i) {
      REQUIRE(got[7 * D + i] == x[7 * D + i] + y[i]);
      REQUIRE(got[D + i] == x[D + i] + y[D + i]);
      REQUIRE(got[i] == x[i]);
    }
    floats many(40'001, 2.0F);
    device->add_arrays(many.data(), many.data(), 40'001, many.data());
    CHECK(many == floats(40'001, 4.0F));
    device->fill_zero({reinterpret_cast<std::byte*>(many.data()), many.size() * 4 - 4});
    CHECK(std::count(many.begin(), many.end(), 0.0F) == 40'000);
    CHECK(many.back() == 4.0F);
  }
}
