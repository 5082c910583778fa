#include "tests/kernels/differences.hpp"

#include <catch2/catch.hpp>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

struct problem {
  int N, K, H, window;
  std::vector<std::int64_t> lengths;

  std::int64_t rows() const {
    std::int64_t sum = 0;
    for (const std::int64_t length : lengths) sum += length;
    return sum;
  }
  std::int64_t columns() const { return (N + 2 * K) * H; }
  std::vector<packed_span> spans() const {
    std::vector<packed_span> spans;
    std::int64_t first = 0;
    for (const std::int64_t length : lengths) {
      spans.push_back({first, length});
      first += length;
    }
    return spans;
  }
  attention_shape shape() const {
    return {N, 1.0F / std::sqrt(static_cast<float>(H)), window, 0.0F};
  }
};

struct answer {
  doubles out, lse, dqkv;
};

// The formulas of Vaswani et al. 2017 (arXiv:1706.03762) and their derivatives, position by
// position; dqkv is empty without a dout.
answer truth_of(const problem& p, const doubles& qkv, const floats& dout) {
  const std::int64_t H = p.H, X = p.columns();
  answer a;
  a.out.assign(static_cast<std::size_t>(p.rows() * p.N * H), 0.0);
  a.lse.assign(static_cast<std::size_t>(p.rows() * p.N), 0.0);
  if (!dout.empty()) a.dqkv.assign(qkv.size(), 0.0);
  const double scale = double{p.shape().scale};
  for (const packed_span& span : p.spans()) {
    for (std::int64_t t = 0; t < span.row_count; ++t) {
      for (int n = 0; n < p.N; ++n) {
        const auto at = [&](std::int64_t row, std::int64_t head) {
          return static_cast<std::size_t>((span.first_row + row) * X + head * H);
        };
        const std::int64_t key = p.N + n / (p.N / p.K);
        const std::int64_t value = key + p.K;
        const std::int64_t first = p.window > 0 ? std::max<std::int64_t>(0, t + 1 - p.window) : 0;
        doubles weights;
        double most = -1e300, sum = 0.0;
        for (std::int64_t s = first; s <= t; ++s) {
          double score = 0.0;
          for (std::size_t h = 0; h < static_cast<std::size_t>(H); ++h) {
            score += qkv[at(t, n) + h] * qkv[at(s, key) + h];
          }
          weights.push_back(score * scale);
          most = std::max(most, score * scale);
        }
        for (double& w : weights) sum += w = std::exp(w - most);
        const auto out = static_cast<std::size_t>(((span.first_row + t) * p.N + n) * H);
        a.lse[static_cast<std::size_t>((span.first_row + t) * p.N + n)] = most + std::log(sum);
        doubles slopes;
        double along = 0.0;
        for (std::int64_t s = first; s <= t; ++s) {
          double& w = weights[static_cast<std::size_t>(s - first)];
          w /= sum;
          double slope = 0.0;
          for (std::size_t h = 0; h < static_cast<std::size_t>(H); ++h) {
            a.out[out + h] += w * qkv[at(s, value) + h];
            if (!dout.empty()) slope += double{dout[out + h]} * qkv[at(s, value) + h];
          }
          slopes.push_back(slope);
          along += w * slope;
        }
        if (dout.empty()) continue;
        for (std::int64_t s = first; s <= t; ++s) {
          const auto i = static_cast<std::size_t>(s - first);
          const double ds = scale * weights[i] * (slopes[i] - along);
          for (std::size_t h = 0; h < static_cast<std::size_t>(H); ++h) {
            a.dqkv[at(t, n) + h] += ds * qkv[at(s, key) + h];
            a.dqkv[at(s, key) + h] += ds * qkv[at(t, n) + h];
            a.dqkv[at(s, value) + h] += weights[i] * double{dout[out + h]};
          }
        }
      }
    }
  }
  return a;
}

struct result {
  floats out, lse, dqkv;
};

result run(test_device& device, const problem& p, const floats& qkv, const floats& dout) {
  const std::int64_t T = p.rows(), X = p.columns(), O = std::int64_t{p.N} * p.H;
  result r{floats(static_cast<std::size_t>(T * O), -7.0F),
           floats(static_cast<std::size_t>(T * p.N), -7.0F), floats(qkv.size(), -7.0F)};
  const auto spans = p.spans();
  device->packed_attention({qkv.data(), T, X}, spans, p.shape(), p.K, p.H, {r.out.data(), T, O},
                           r.lse.data());
  device->packed_attention_backward({dout.data(), T, O}, {qkv.data(), T, X}, {r.out.data(), T, O},
                                    r.lse.data(), spans, p.shape(), p.K, p.H,
                                    {r.dqkv.data(), T, X});
  return r;
}

}  // namespace

TEST_CASE("the derivatives these tests trust are central differences of attention itself") {
  for (const int window : {0, 3}) {
    const problem p{4, 2, 8, window, {5, 1, 7}};
    randoms random(51);
    const floats qkv = random.values(p.rows() * p.columns(), 1.5F);
    const floats dout = random.values(p.rows() * p.N * p.H);
    const doubles slow =
        differences(widened(qkv), dout, [&](const doubles& v) { return truth_of(p, v, {}).out; });
    const doubles quick = truth_of(p, widened(qkv), dout).dqkv;
    double worst = 0.0;
    for (std::size_t i = 0; i < slow.size(); ++i) {
      worst = std::max(worst, std::fabs(slow[i] - quick[i]));
    }
    CHECK(worst < 1e-9);
  }
}

TEST_CASE("packed attention and its gradients are as exact as the plain kernel in odd sizes") {
  for (const problem& p : {problem{1, 1, 8, 0, {1}}, problem{3, 1, 64, 0, {31, 0, 33, 1, 17}},
                           problem{2, 2, 40, 0, {70, 5}}, problem{4, 2, 128, 0, {65}},
                           problem{6, 2, 64, 0, {150, 129}}, problem{3, 1, 64, 20, {120, 3}},
                           problem{2, 1, 16, 64, {200}}, problem{1, 1, 256, 2, {20}}}) {
    randoms random(52);
    const floats qkv = random.values(p.rows() * p.columns(), 1.5F);
    const floats dout = random.values(p.rows() * p.N * p.H);
    const answer truth = truth_of(p, widened(qkv), dout);
    exactness out_exact(truth.out), lse_exact(truth.lse), d_exact(truth.dqkv);
    for (const auto set : cpu::supported_instruction_sets()) {
      INFO(name_of(set) << " N=" << p.N << " K=" << p.K << " H=" << p.H << " window " << p.window
                        << " rows " << p.rows());
      result first;
      for (const int threads : {1, 2, 3}) {
        test_device device(set, threads, training_limits());
        const result got = run(device, p, qkv, dout);
        CHECK(out_exact.holds(set, got.out));
        CHECK(lse_exact.holds(set, got.lse));
        CHECK(d_exact.holds(set, got.dqkv, 1e-5));
        if (threads == 1) first = got;
        CHECK(got.out == first.out);
        CHECK(got.lse == first.lse);
        CHECK(got.dqkv == first.dqkv);
      }
    }
  }
}

TEST_CASE("an example's bits do not depend on what is packed beside it") {
  const problem alone{3, 1, 64, 0, {77}};
  const problem packed{3, 1, 64, 0, {31, 77, 100}};
  randoms random(53);
  const floats qkv = random.values(packed.rows() * packed.columns());
  const floats dout = random.values(packed.rows() * packed.N * packed.H);
  const auto part = [&](const floats& all, std::int64_t width) {
    return floats(all.begin() + 31 * width, all.begin() + (31 + 77) * width);
  };
  for (const auto set : cpu::supported_instruction_sets()) {
    INFO(name_of(set));
    test_device device(set, 2, training_limits());
    const result all = run(device, packed, qkv, dout);
    const result one = run(device, alone, part(qkv, packed.columns()), part(dout, 192));
    CHECK(one.out == part(all.out, 192));
    CHECK(one.dqkv == part(all.dqkv, packed.columns()));
  }
}
