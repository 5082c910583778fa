#include "tests/cuda/pair.hpp"

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

struct heads {
  int N, K, H, rotary;
  std::int64_t width() const { return std::int64_t{N + 2 * K} * H; }
};
constexpr heads all_heads[] = {{2, 1, 16, 16}, {2, 1, 24, 16},    {9, 3, 64, 64}, {4, 4, 80, 32},
                               {5, 1, 256, 0}, {32, 8, 128, 128}, {1, 1, 8, 2}};

struct problem {
  heads of;
  std::int64_t rows;
  floats qkv, d, angles, q_norm, k_norm;

  problem(const heads& which, std::int64_t T) : of(which), rows(T) {
    randoms random(61);
    qkv = random.values(T * of.width());
    d = random.values(T * of.width());
    angles = random.values(T * std::max(of.rotary, 1));
    q_norm = random.values(of.H);
    k_norm = random.values(of.H);
  }
};

step_limits limits_of(std::int64_t rows) {
  step_limits limits = training_limits();
  limits.rows = rows;
  limits.query_heads = 32;
  return limits;
}

}  // namespace

TEST_CASE("the GPU's angles are the CPU's", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  test_device cpu(cpu::instruction_set::reference);
  for (const int half : {1, 16, 32, 64}) {
    floats frequencies;
    for (int i = 0; i < half; ++i)
      frequencies.push_back(std::pow(10000.0F, -static_cast<float>(i) / static_cast<float>(half)));
    const std::vector<std::int32_t> positions{0, 1, 17, 4095, 131071, 7};
    const std::int64_t T = std::ssize(positions);
    floats truth(static_cast<std::size_t>(T * 2 * half));
    cpu->rope_angles(positions, frequencies, 1.25F, truth.data());
    const rows_out angles = gpu->room_for(T, 2 * half);
    (*gpu)->rope_angles(positions, frequencies, 1.25F, angles.data);
    CHECK(worst_difference(gpu->get(angles), truth) <= 1.2e-7);
  }
}

TEST_CASE("the GPU turns and stores what the CPU does", "[gpu]") {
  const std::int64_t T = 21;
  auto gpu = gpu_device::open(limits_of(T));
  if (gpu == nullptr) return;
  test_device cpu(cpu::instruction_set::reference, 1, limits_of(T));
  const std::vector<std::int32_t> blocks{3, 0, 2}, others{1};
  for (const heads& of : all_heads) {
    for (const bool normed : {false, true}) {
      const problem p(of, T);
      INFO("N " << of.N << " K " << of.K << " H " << of.H << " rotary " << of.rotary
                << (normed ? " normed" : ""));
      const std::vector<attention_span> spans{{0, 17, 20, blocks.data()},
                                              {17, 4, 0, others.data()}};
      const kv_layout layout{of.K, of.H, kv_format::f32};
      const std::int64_t turned = std::int64_t{of.N + of.K} * of.H;
      const auto queries = [&](const floats& rows) {
        floats out;
        for (std::int64_t t = 0; t < T; ++t)
          out.insert(out.end(), rows.begin() + t * of.width(),
                     rows.begin() + t * of.width() + turned - of.K * of.H);
        return out;
      };
      // Attending afterwards reads what was stored: from the row's own position alone, and all.
      const std::int64_t O = std::int64_t{of.N} * of.H;
      floats truth = p.qkv;
      floats true_own(static_cast<std::size_t>(T * O)), true_all = true_own;
      {
        const std::size_t stride = cpu->kv_block_bytes(layout);
        const aligned_bytes memory(4 * stride);
        std::fill_n(memory.data(), memory.span().size(), std::byte{0});
        const kv_cache cache{layout, memory.data(), stride};
        cpu->rope_store({truth.data(), T, of.width()}, spans, {of.N, 1.0F, 0, 0.0F},
                        {of.rotary, p.angles.data()}, normed ? p.q_norm.data() : nullptr,
                        normed ? p.k_norm.data() : nullptr, 1e-6F, cache);
        cpu->attention({truth.data(), T, of.width()}, spans, {of.N, 0.1F, 1, 0.0F}, cache,
                       {true_own.data(), T, O});
        cpu->attention({truth.data(), T, of.width()}, spans, {of.N, 0.1F, 0, 0.0F}, cache,
                       {true_all.data(), T, O});
      }
      const std::size_t stride = (*gpu)->kv_block_bytes(layout);
      const kv_cache cache{layout, gpu->room(4 * stride), stride};
      (*gpu)->fill_zero({cache.base, 4 * stride});
      const rows_out rows = gpu->rows(p.qkv, T, of.width());
      (*gpu)->rope_store(rows, spans, {of.N, 1.0F, 0, 0.0F}, {of.rotary, gpu->put(p.angles)},
                         normed ? gpu->put(p.q_norm) : nullptr,
                         normed ? gpu->put(p.k_norm) : nullptr, 1e-6F, cache);
      CHECK(worst_difference(queries(gpu->get(rows)), queries(truth)) <= 2e-6);
      const rows_out out = gpu->room_for(T, O);
      (*gpu)->attention(rows, spans, {of.N, 0.1F, 1, 0.0F}, cache, out);
      CHECK(worst_difference(gpu->get(out), true_own) <= 5e-7);
      (*gpu)->attention(rows, spans, {of.N, 0.1F, 0, 0.0F}, cache, out);
      CHECK(worst_difference(gpu->get(out), true_all) <= 1e-5);
    }
  }
}

TEST_CASE("the GPU's rope of training and its backward are the CPU's", "[gpu]") {
  for (const heads& of : all_heads) {
    for (const std::int64_t T : {1, 37, 150}) {
      auto gpu = gpu_device::open(limits_of(T));
      if (gpu == nullptr) return;
      test_device cpu(cpu::instruction_set::reference, 1, limits_of(T));
      const problem p(of, T);
      const std::vector<row_segment> slots{{0, T / 3}, {T / 3, 0}, {T / 3, T - T / 3}};
      for (const bool normed : {false, true}) {
        INFO("N " << of.N << " K " << of.K << " H " << of.H << " rotary " << of.rotary << " rows "
                  << T << (normed ? " normed" : ""));
        const float* const q_norm = normed ? p.q_norm.data() : nullptr;
        const float* const k_norm = normed ? p.k_norm.data() : nullptr;
        floats turned = p.qkv, d = p.d;
        floats dq(static_cast<std::size_t>(of.H), 0.5F), dk = dq;
        const rope_step angles{of.rotary, p.angles.data()};
        cpu->rope({p.qkv.data(), T, of.width()}, of.N, of.K, of.H, angles, q_norm, k_norm, 1e-6F,
                  {turned.data(), T, of.width()});
        cpu->rope_backward({p.qkv.data(), T, of.width()}, of.N, of.K, of.H, angles, q_norm, k_norm,
                           1e-6F, slots, {d.data(), T, of.width()}, dq.data(), dk.data());

        const rope_step there{of.rotary, gpu->put(p.angles)};
        const float* const q_there = normed ? gpu->put(p.q_norm) : nullptr;
        const float* const k_there = normed ? gpu->put(p.k_norm) : nullptr;
        const rows_out qkv = gpu->rows(p.qkv, T, of.width());
        const rows_out out = gpu->room_for(T, of.width());
        (*gpu)->rope(qkv, of.N, of.K, of.H, there, q_there, k_there, 1e-6F, out);
        CHECK(worst_difference(gpu->get(out), turned) <= 2e-6);
        const floats half(static_cast<std::size_t>(of.H), 0.5F);
        const rows_out d_there = gpu->rows(p.d, T, of.width());
        float* const dq_there = gpu->put(half);
        float* const dk_there = gpu->put(half);
        (*gpu)->rope_backward(qkv, of.N, of.K, of.H, there, q_there, k_there, 1e-6F, slots, d_there,
                              dq_there, dk_there);
        CHECK(worst_difference(gpu->get(d_there), d) <= 1e-5);
        CHECK(worst_difference(gpu->get(dq_there, of.H), dq) <= 1e-5);
        CHECK(worst_difference(gpu->get(dk_there, of.H), dk) <= 1e-5);
        // In place, and again: the same bits.
        const floats before = gpu->get(out);
        (*gpu)->rope(qkv, of.N, of.K, of.H, there, q_there, k_there, 1e-6F, qkv);
        CHECK(gpu->get(qkv) == before);
      }
    }
  }
}

TEST_CASE("on the GPU gradients of head norms are one tree, whoever has which slots", "[gpu]") {
  const heads of{4, 2, 64, 64};
  const std::int64_t T = 200;
  auto gpu = gpu_device::open(limits_of(T));
  if (gpu == nullptr) return;
  const problem p(of, T);
  const auto gradient = [&](std::int64_t first, const std::vector<row_segment>& slots) {
    const std::int64_t rows = slots.back().first_row + slots.back().row_count;
    const auto part = [&](const floats& all, std::int64_t width) {
      return floats(all.begin() + first * width, all.begin() + (first + rows) * width);
    };
    float* const dq = gpu->put(floats(64, 0.0F));
    (*gpu)->rope_backward(gpu->rows(part(p.qkv, of.width()), rows, of.width()), of.N, of.K, of.H,
                          {of.rotary, gpu->put(part(p.angles, of.rotary))}, gpu->put(p.q_norm),
                          gpu->put(p.k_norm), 1e-6F, slots,
                          gpu->rows(part(p.d, of.width()), rows, of.width()), dq, nullptr);
    return gpu->get(dq, 64);
  };
  const floats whole = gradient(0, {{0, 31}, {31, 70}, {101, 0}, {101, 99}});
  const floats left = gradient(0, {{0, 31}, {31, 70}});
  const floats right = gradient(101, {{0, 0}, {0, 99}});
  floats sum;
  for (std::size_t i = 0; i < left.size(); ++i) sum.push_back(left[i] + right[i]);
  CHECK(whole == sum);
}
