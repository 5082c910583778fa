#include "kernels/cuda/slot_program.hpp"
#include "tests/cuda/training_pair.hpp"

using namespace tandem::kernels;
using namespace tandem::kernels::test;

TEST_CASE("the slot tree as steps adds what the tree adds, empty slots or not") {
  randoms random(1);
  for (int count = 1; count < 70; ++count) {
    std::vector<row_segment> slots;
    std::int64_t rows = 0;
    for (int i = 0; i < count; ++i) {
      slots.push_back({rows, random.below(3)});
      rows += slots.back().row_count;
    }
    const floats x = random.values(rows);
    const auto leaf = [&](std::int64_t first, std::int64_t n) {
      float sum = 0.0F;
      for (std::int64_t t = first; t < first + n; ++t) sum += x[static_cast<std::size_t>(t)];
      return sum;
    };
    const std::function<float(std::size_t, std::size_t)> tree = [&](std::size_t b, std::size_t e) {
      if (e - b == 1) return leaf(slots[b].first_row, slots[b].row_count);
      return tree(b, (b + e) / 2) + tree((b + e) / 2, e);
    };
    const auto program = cuda::slot_program_of(slots);
    floats waiting;
    float sum = 0.0F;
    for (std::size_t i = 0; i < program.steps.size(); ++i) {
      if (i > 0) waiting.push_back(sum);
      CHECK(std::ssize(waiting) <= program.depth);
      sum = leaf(program.steps[i].first_row, program.steps[i].row_count);
      for (int n = 0; n < program.steps[i].adds; ++n) {
        REQUIRE_FALSE(waiting.empty());
        sum = waiting.back() + sum;
        waiting.pop_back();
      }
    }
    CHECK(waiting.empty());
    CHECK(sum == tree(0, slots.size()));
  }
}

TEST_CASE("a product's input gradient on a GPU is the CPU's in every weight format", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  for (const weight_format format : all_formats) {
    for (auto [T, X, Y] : odd_shapes) {
      if (is_block(format)) X = (X + 31) / 32 * 32;
      for (const bool add : {false, true}) {
        INFO(name_of(format) << " T=" << T << " X=" << X << " Y=" << Y << " add " << add);
        randoms random(31);
        const floats weights = random.values(Y * X, 0.1F);
        const slice dy(random, T, Y, add ? 4 : 5);
        const floats before = random.values(T * X);
        test_device cpu(cpu::instruction_set::reference, 1, training_limits());
        floats truth = before;
        cpu->linear_backward_input(dy.on_cpu(), cpu.packed(format, Y, X, weights), add,
                                   {truth.data(), T, X});
        const packed_matrix w = gpu->packed(format, Y, X, weights);
        const rows_out dx = gpu->rows(before, T, X);
        (*gpu)->linear_backward_input(dy.on(*gpu), w, add, dx);
        const floats got = gpu->get(dx);
        CHECK(worst_difference(got, truth) <= 5e-6);
        // One row alone.
        const rows_out alone = gpu->rows(floats(before.end() - X, before.end()), 1, X);
        const floats last(dy.values.end() - dy.stride, dy.values.end());
        (*gpu)->linear_backward_input({gpu->put(last), 1, Y, dy.stride}, w, add, alone);
        CHECK(gpu->get(alone) == floats(got.end() - X, got.end()));
      }
    }
  }
}

TEST_CASE("a product's weight gradient on a GPU is the CPU's", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  for (const auto& [T, X, Y] : odd_shapes) {
    INFO("T=" << T << " X=" << X << " Y=" << Y);
    randoms random(32);
    const slice dy(random, T, Y), x(random, T, X);
    const floats before = random.values(Y * X);
    const auto slots = slots_of(T, {3, 0, 7, 20, 1});
    test_device cpu(cpu::instruction_set::reference, 1, training_limits());
    const packed_matrix truth = cpu.packed(weight_format::f32, Y, X, before);
    cpu->linear_backward_weights(dy.on_cpu(), x.on_cpu(), slots, truth);
    packed_matrix dw = gpu->packed(weight_format::f32, Y, X, before);
    (*gpu)->linear_backward_weights(dy.on(*gpu), x.on(*gpu), slots, dw);
    const floats got = gpu->unpacked(dw);
    CHECK(worst_difference(got, cpu.unpacked(truth)) <= 5e-6);
    // As a whole tile it would show what lies behind its last row.
    dw.rows = (Y + 15) / 16 * 16;
    floats behind(static_cast<std::size_t>(X));
    for (std::int64_t r = Y; r < dw.rows; ++r) {
      (*gpu)->unpack_row(dw, r, behind.data());
      CHECK(behind == floats(behind.size(), 0.0F));
    }
  }
}

TEST_CASE("slots on a GPU: one device of four, two of two and four of one give the same bits",
          "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  const std::int64_t T = 150, X = 37, Y = 90;
  randoms random(33);
  const slice dy(random, T, Y), x(random, T, X);
  const rows_in dy_there = dy.on(*gpu), x_there = x.on(*gpu);
  const floats before = random.values(Y * X), zero(static_cast<std::size_t>(Y * X), 0.0F);
  const auto weights_of = [&](std::span<const row_segment> slots, const floats& held) {
    return weights_backward_of(*gpu, dy_there, x_there, slots, held);
  };
  for (const std::vector<std::int64_t>& counts :
       {std::vector<std::int64_t>{40, 30, 60, 20}, {150, 0, 0, 0}, {0, 75, 1, 74}}) {
    const auto slots = slots_of(T, counts);
    const std::span<const row_segment> all(slots);
    const floats four = weights_of(all, zero);
    CHECK(weights_of(all, zero) == four);
    CHECK(four == sum_of(weights_of(all.first(2), zero), weights_of(all.last(2), zero)));
    CHECK(four ==
          sum_of(sum_of(weights_of(all.subspan(0, 1), zero), weights_of(all.subspan(1, 1), zero)),
                 sum_of(weights_of(all.subspan(2, 1), zero), weights_of(all.subspan(3, 1), zero))));
    // What the gradient held comes in once, at the end.
    CHECK(weights_of(all, before) == sum_of(before, four));
  }
  // Deeper trees, and one that is deep and almost empty.
  std::vector<row_segment> many;
  for (std::int64_t t = 0; t < T; ++t) many.push_back({t, 1});
  const std::span<const row_segment> all(many);
  const floats deep = weights_of(all, zero);
  CHECK(deep == sum_of(weights_of(all.first(75), zero), weights_of(all.last(75), zero)));
  std::vector<row_segment> sparse(1 << 12, row_segment{T, 0});
  for (std::size_t i = 0; i < sparse.size(); ++i) {
    const auto first = static_cast<std::int64_t>(std::min<std::size_t>(i / 1'000, 3)) * 50;
    sparse[i] = {i % 1'000 == 0 || first >= T ? std::min(first, T) : std::min(first + 50, T),
                 i % 1'000 == 0 && first < T ? 50 : 0};
  }
  CHECK(weights_of(sparse, zero) ==
        weights_of(std::vector<row_segment>{{0, 50}, {50, 50}, {100, 50}, {150, 0}}, zero));
}

TEST_CASE("a GPU takes more slots than its shared memory has room for, with the same bits",
          "[gpu]") {
  step_limits limits = training_limits();
  limits.rows = 1 << 14;
  limits.experts = 0;
  auto gpu = gpu_device::open(limits);
  if (gpu == nullptr) return;
  const std::int64_t T = 1 << 14, X = 5, Y = 3;
  randoms random(36);
  const rows_in dy = gpu->rows(random.values(T * Y), T, Y);
  const rows_in x = gpu->rows(random.values(T * X), T, X);
  const auto weights_of = [&](std::int64_t first, std::int64_t rows) {
    std::vector<row_segment> slots;
    for (std::int64_t t = 0; t < rows; ++t) slots.push_back({t, 1});
    const packed_matrix dw = gpu->gradient(Y, X);
    (*gpu)->linear_backward_weights({dy.row(first), rows, Y}, {x.row(first), rows, X}, slots, dw);
    return gpu->unpacked(dw);
  };
  CHECK(weights_of(0, T) == sum_of(weights_of(0, T / 2), weights_of(T / 2, T / 2)));
}

TEST_CASE("a bias's gradient on a GPU has the CPU's bits", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  for (const std::int64_t Y : {1, 31, 33, 200}) {
    const std::int64_t T = 77;
    randoms random(34);
    const slice dy(random, T, Y);
    const auto slots = slots_of(T, {20, 17, 0, 40});
    test_device cpu(cpu::instruction_set::reference, 1, training_limits());
    floats truth(static_cast<std::size_t>(Y), 0.25F);
    cpu->bias_backward(dy.on_cpu(), slots, truth.data());
    float* const db = gpu->put(floats(truth.size(), 0.25F));
    (*gpu)->bias_backward(dy.on(*gpu), slots, db);
    CHECK(gpu->get(db, Y) == truth);
  }
}
