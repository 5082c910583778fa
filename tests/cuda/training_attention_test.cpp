#include "tests/cuda/pair.hpp"

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
  std::int64_t columns() const { return std::int64_t{N + 2 * K} * H; }
  std::int64_t out_columns() const { return std::int64_t{N} * H; }
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
  step_limits limits(bool rounded = false) const {
    step_limits limits = training_limits();
    limits.rounded = rounded;
    limits.widest_input = std::max(limits.widest_input, out_columns());
    limits.widest_output = columns();
    limits.rows = rows();
    limits.context_positions = 0;
    limits.query_heads = N;
    limits.head_size = H;
    return limits;
  }
};

struct result {
  floats out, lse, dqkv;
  bool operator==(const result&) const = default;
};

result on_gpu(gpu_device& gpu, const problem& p, const floats& qkv, const floats& dout) {
  const std::int64_t T = p.rows();
  const auto spans = p.spans();
  const rows_out x = gpu.rows(qkv, T, p.columns());
  const rows_out out = gpu.room_for(T, p.out_columns());
  const rows_out dqkv = gpu.room_for(T, p.columns());
  float* const lse = gpu.room_for(T, p.N).data;
  gpu->packed_attention(x, spans, p.shape(), p.K, p.H, out, lse);
  gpu->packed_attention_backward(gpu.rows(dout, T, p.out_columns()), x, out, lse, spans, p.shape(),
                                 p.K, p.H, dqkv);
  return {gpu.get(out), gpu.get(lse, T * p.N), gpu.get(dqkv)};
}

result on_cpu(const problem& p, const floats& qkv, const floats& dout) {
  test_device cpu(cpu::instruction_set::reference, 1, p.limits());
  const std::int64_t T = p.rows(), X = p.columns(), O = p.out_columns();
  const auto spans = p.spans();
  result r{floats(static_cast<std::size_t>(T * O)), floats(static_cast<std::size_t>(T * p.N)),
           floats(qkv.size())};
  cpu->packed_attention({qkv.data(), T, X}, spans, p.shape(), p.K, p.H, {r.out.data(), T, O},
                        r.lse.data());
  cpu->packed_attention_backward({dout.data(), T, O}, {qkv.data(), T, X}, {r.out.data(), T, O},
                                 r.lse.data(), spans, p.shape(), p.K, p.H, {r.dqkv.data(), T, X});
  return r;
}

// False: no GPU here.
bool check_alone_and_packed(int H, bool rounded) {
  const problem alone{6, 2, H, 0, {177}};
  const problem packed{6, 2, H, 0, {31, 177, 100}};
  auto gpu = gpu_device::open(packed.limits(rounded));
  if (gpu == nullptr) return false;
  randoms random(53);
  const floats qkv = random.values(packed.rows() * packed.columns());
  const floats dout = random.values(packed.rows() * packed.out_columns());
  const auto part = [&](const floats& all, std::int64_t width) {
    return floats(all.begin() + 31 * width, all.begin() + (31 + 177) * width);
  };
  const result all = on_gpu(*gpu, packed, qkv, dout);
  const result one =
      on_gpu(*gpu, alone, part(qkv, packed.columns()), part(dout, packed.out_columns()));
  CHECK(one.out == part(all.out, packed.out_columns()));
  CHECK(one.lse == part(all.lse, packed.N));
  CHECK(one.dqkv == part(all.dqkv, packed.columns()));
  return true;
}

}  // namespace

TEST_CASE("the GPU's packed attention and its gradients are the CPU's in odd sizes", "[gpu]") {
  for (const problem& p :
       {problem{1, 1, 8, 0, {1}}, problem{3, 1, 64, 0, {31, 0, 33, 1, 17}},
        problem{2, 2, 40, 0, {70, 5}}, problem{4, 2, 128, 0, {65}},
        problem{6, 2, 64, 0, {150, 129}}, problem{3, 1, 64, 20, {120, 3}},
        problem{2, 1, 16, 64, {200}}, problem{1, 1, 256, 2, {20}}, problem{4, 2, 256, 0, {90, 7}},
        problem{2, 1, 192, 33, {77}}, problem{9, 3, 64, 0, {515}}, problem{4, 1, 96, 130, {300}},
        problem{2, 1, 128, 1, {66}}}) {
    auto gpu = gpu_device::open(p.limits());
    if (gpu == nullptr) return;
    randoms random(52);
    const floats qkv = random.values(p.rows() * p.columns(), 1.5F);
    const floats dout = random.values(p.rows() * p.out_columns());
    INFO("N=" << p.N << " K=" << p.K << " H=" << p.H << " window " << p.window << " rows "
              << p.rows());
    const result truth = on_cpu(p, qkv, dout);
    const result got = on_gpu(*gpu, p, qkv, dout);
    CHECK(worst_difference(got.out, truth.out) <= 1e-5);
    CHECK(worst_difference(got.lse, truth.lse) <= 1e-5);
    CHECK(worst_difference(got.dqkv, truth.dqkv) <= 1e-5);
    CHECK(on_gpu(*gpu, p, qkv, dout) == got);
  }
}

TEST_CASE("on the GPU an example's bits do not depend on what is packed beside it", "[gpu]") {
  for (const int H : {64, 128, 256})
    if (!check_alone_and_packed(H, false)) return;
}

TEST_CASE("attention in bfloat16 and its gradients stay near the CPU's, example by example",
          "[gpu]") {
  for (const problem& p : {problem{1, 1, 8, 0, {1}}, problem{3, 1, 64, 0, {31, 0, 33, 1, 17}},
                           problem{2, 2, 40, 0, {70, 5}}, problem{4, 2, 128, 0, {65}},
                           problem{6, 2, 64, 0, {150, 129}}, problem{3, 1, 64, 20, {120, 3}},
                           problem{2, 1, 16, 64, {200}}, problem{9, 3, 64, 0, {515}},
                           problem{4, 1, 96, 130, {300}}, problem{2, 1, 128, 1, {66}},
                           problem{4, 2, 128, 100, {40, 333}}, problem{4, 2, 256, 0, {90, 7}}}) {
    auto gpu = gpu_device::open(p.limits(true));
    if (gpu == nullptr) return;
    randoms random(54);
    const floats qkv = random.values(p.rows() * p.columns(), 1.5F);
    const floats dout = random.values(p.rows() * p.out_columns());
    INFO("N=" << p.N << " K=" << p.K << " H=" << p.H << " window " << p.window << " rows "
              << p.rows());
    const result truth = on_cpu(p, qkv, dout);
    const result got = on_gpu(*gpu, p, qkv, dout);
    CHECK(worst_difference(got.out, truth.out) <= 2e-2);
    CHECK(worst_difference(got.lse, truth.lse) <= 1e-2);
    CHECK(worst_difference(got.dqkv, truth.dqkv) <= 2e-2);
    CHECK(on_gpu(*gpu, p, qkv, dout) == got);
  }
  for (const int H : {64, 128})
    if (!check_alone_and_packed(H, true)) return;
}
