// Norms, routing, arrays, the loss and the optimizer, on the GPU and by the plain kernels.
#include "tests/cuda/pair.hpp"

#include <cmath>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

test_device plain() { return test_device(cpu::instruction_set::reference, 1, training_limits()); }

constexpr std::int64_t widths[] = {1, 3, 16, 64, 300, 576, 4096, 4100};

}  // namespace

TEST_CASE("rms norms are the CPU's, in place too, and each row's own", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  auto cpu = plain();
  randoms random(1);
  for (const auto D : widths) {
    CAPTURE(D);
    const std::int64_t T = 5;
    const auto x = random.values(T * D);
    const auto w = random.values(D);
    const auto old = random.values(T * D);
    auto want = x;
    cpu->rms_norm({x.data(), T, D}, w.data(), 1e-5F, {want.data(), T, D});
    const auto on = gpu->rows(x, T, D);
    const auto* const w_there = gpu->put(w);
    const auto out = gpu->room_for(T, D);
    (*gpu)->rms_norm(on, w_there, 1e-5F, out);
    const auto got = gpu->get(out);
    CHECK(worst_difference(got, want) < 2e-6);
    (*gpu)->rms_norm(on, w_there, 1e-5F, on);
    CHECK(gpu->get(on) == got);
    // The last row alone has the same bits.
    const auto last = gpu->rows({x.end() - D, x.end()}, 1, D);
    (*gpu)->rms_norm(last, w_there, 1e-5F, last);
    CHECK(gpu->get(last) == floats(got.end() - D, got.end()));

    auto sum = old;
    cpu->add_rms_norm({x.data(), T, D}, w.data(), 1e-5F, {sum.data(), T, D});
    const auto to = gpu->rows(old, T, D);
    (*gpu)->add_rms_norm(gpu->rows(x, T, D), w_there, 1e-5F, to);
    CHECK(worst_difference(gpu->get(to), sum) < 2e-6);
  }
}

TEST_CASE("gradients of norms are the CPU's for any slots", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  auto cpu = plain();
  randoms random(2);
  const std::vector<std::vector<row_segment>> layouts = {
      {{0, 40}}, {{0, 10}, {10, 0}, {10, 25}, {35, 5}}, {{0, 1}, {1, 2}, {3, 37}}};
  for (const auto D : widths) {
    for (const auto& slots : layouts) {
      CAPTURE(D, slots.size());
      const std::int64_t T = 40;
      const auto x = random.values(T * D);
      const auto dy = random.values(T * D);
      const auto w = random.values(D);
      auto dx = random.values(T * D);
      auto dw = random.values(D);
      const auto on_dx = gpu->rows(dx, T, D);
      auto* const on_dw = gpu->put(dw);
      cpu->rms_norm_backward({dy.data(), T, D}, {x.data(), T, D}, w.data(), 1e-5F, slots, true,
                             {dx.data(), T, D}, dw.data());
      (*gpu)->rms_norm_backward(gpu->rows(dy, T, D), gpu->rows(x, T, D), gpu->put(w), 1e-5F, slots,
                                true, on_dx, on_dw);
      CHECK(worst_difference(gpu->get(on_dx), dx) < 1e-5);
      CHECK(worst_difference(gpu->get(on_dw, D), dw) < 1e-5);
    }
  }
}

TEST_CASE("slots of two devices add up to the bits of one device's slots", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  randoms random(3);
  const std::int64_t T = 32;
  const std::int64_t D = 96;
  const auto x = random.values(T * D);
  const auto dy = random.values(T * D);
  const auto* const w = gpu->put(random.values(D));
  const auto gradient = [&](std::int64_t first, std::int64_t rows,
                            const std::vector<row_segment>& slots) {
    auto* const dw = gpu->put(floats(static_cast<std::size_t>(D), 0.0F));
    const floats some_dy(dy.begin() + first * D, dy.begin() + (first + rows) * D);
    const floats some_x(x.begin() + first * D, x.begin() + (first + rows) * D);
    (*gpu)->rms_norm_backward(gpu->rows(some_dy, rows, D), gpu->rows(some_x, rows, D), w, 1e-5F,
                              slots, false, gpu->room_for(rows, D), dw);
    return gpu->get(dw, D);
  };
  const auto whole = gradient(0, T, {{0, 5}, {5, 9}, {14, 2}, {16, 16}});
  auto first = gradient(0, 14, {{0, 5}, {5, 9}});
  const auto second = gradient(14, 18, {{0, 2}, {2, 16}});
  for (std::size_t i = 0; i < first.size(); ++i) first[i] += second[i];
  CHECK(first == whole);
}

TEST_CASE("gated activations and their gradients are the CPU's", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  auto cpu = plain();
  randoms random(4);
  for (const auto act : {activation::silu, activation::gelu_tanh}) {
    for (const std::int64_t F : {1, 16, 40, 96, 1536}) {
      CAPTURE(F, static_cast<int>(act));
      const std::int64_t T = 7;
      const std::int64_t G = (F + 15) / 16 * 32;
      auto gate_up = random.values(T * G, 4.0F);
      const auto dy = random.values(T * F);
      floats y(static_cast<std::size_t>(T * F));
      cpu->activate_gated({gate_up.data(), T, G}, act, {y.data(), T, F});
      const auto on = gpu->rows(gate_up, T, G);
      const auto out = gpu->room_for(T, F);
      (*gpu)->activate_gated(on, act, out);
      CHECK(worst_difference(gpu->get(out), y) < 2e-6);
      cpu->activate_gated_backward({dy.data(), T, F}, act, {gate_up.data(), T, G});
      (*gpu)->activate_gated_backward(gpu->rows(dy, T, F), act, on);
      CHECK(worst_difference(gpu->get(on), gate_up) < 3e-6);
    }
  }
}

TEST_CASE("experts are chosen as on the CPU, ties too", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  auto cpu = plain();
  randoms random(5);
  for (const bool normalize : {true, false}) {
    for (const std::int64_t E : {2, 8, 40, 128}) {
      CAPTURE(E, normalize);
      const std::int64_t T = 9;
      auto logits = random.values(T * E, 3.0F);
      for (std::int64_t e = 0; e < E; ++e) logits[static_cast<std::size_t>(e)] = 1.0F;
      const int count = E < 4 ? 2 : 4;
      const auto places = static_cast<std::size_t>(T * count);
      std::vector<std::int32_t> ids(places);
      floats weights(places);
      const moe_routes here{count, ids.data(), weights.data()};
      cpu->moe_route({logits.data(), T, E}, normalize, here);
      const moe_routes there{count, gpu->put(std::vector<std::int32_t>(places)),
                             gpu->put(floats(places))};
      const auto on = gpu->rows(logits, T, E);
      (*gpu)->moe_route(on, normalize, there);
      CHECK(gpu->get(there.ids, T * count) == ids);
      CHECK(worst_difference(gpu->get(there.weights, T * count), weights) < 2e-6);

      const auto dweights = random.values(T * count);
      floats dlogits(static_cast<std::size_t>(T * E));
      cpu->moe_route_backward({logits.data(), T, E}, normalize, here, dweights.data(),
                              {dlogits.data(), T, E});
      const auto out = gpu->room_for(T, E);
      (*gpu)->moe_route_backward(on, normalize, there, gpu->put(dweights), out);
      CHECK(worst_difference(gpu->get(out), dlogits) < 5e-6);
    }
  }
}

TEST_CASE("rows are gathered and scattered", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  auto cpu = plain();
  randoms random(6);
  const std::int64_t D = 77;
  const auto x = random.values(10 * D);
  const std::vector<std::int32_t> rows{9, 0, 4};
  auto to = random.values(10 * D);
  floats picked(static_cast<std::size_t>(3 * D));
  cpu->gather_rows({x.data(), 10, D}, rows, {picked.data(), 3, D});
  const auto on = gpu->rows(to, 10, D);
  const auto out = gpu->room_for(3, D);
  (*gpu)->gather_rows(gpu->rows(x, 10, D), rows, out);
  CHECK(gpu->get(out) == picked);
  cpu->scatter_add_rows({picked.data(), 3, D}, rows, {to.data(), 10, D});
  (*gpu)->scatter_add_rows(out, rows, on);
  CHECK(gpu->get(on) == to);
  cpu->add_rows({x.data(), 10, D}, {to.data(), 10, D});
  (*gpu)->add_rows(gpu->rows(x, 10, D), on);
  CHECK(gpu->get(on) == to);
  cpu->scale_rows(0.3F, {to.data(), 10, D});
  (*gpu)->scale_rows(0.3F, on);
  CHECK(gpu->get(on) == to);
}

TEST_CASE("cross entropy in pieces is the CPU's", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  auto cpu = plain();
  randoms random(7);
  const std::int64_t B = 6;
  const std::int64_t V = 1000;
  auto logits = random.values(B * V, 8.0F);
  logits[2] = logits[700] = 9.0F;  // a tie over two pieces
  std::vector<cross_entropy_row> here(B);
  std::vector<cross_entropy_row> there(B);
  for (std::size_t b = 0; b < here.size(); ++b)
    here[b].target = there[b].target = static_cast<std::int32_t>(b * 190);
  const floats scales{1.0F, 0.5F, 0.25F, 2.0F, 0.0F, 1.0F};
  const std::vector<std::int64_t> ends{300, 301, 1000};
  const auto piece = [&](std::int64_t first, std::int64_t end) {
    floats some;
    for (std::int64_t b = 0; b < B; ++b)
      some.insert(some.end(), logits.begin() + b * V + first, logits.begin() + b * V + end);
    return some;
  };
  std::int64_t first = 0;
  for (const auto end : ends) {
    const auto some = piece(first, end);
    cpu->cross_entropy_observe({some.data(), B, end - first}, static_cast<std::int32_t>(first),
                               here);
    (*gpu)->cross_entropy_observe(gpu->rows(some, B, end - first), static_cast<std::int32_t>(first),
                                  there);
    first = end;
  }
  for (std::size_t b = 0; b < here.size(); ++b) {
    CAPTURE(b);
    CHECK(there[b].maximum == here[b].maximum);
    CHECK(there[b].sum == Approx(here[b].sum).epsilon(1e-5));
    CHECK(there[b].target_logit == here[b].target_logit);
    CHECK(there[b].best == here[b].best);
  }
  first = 0;
  for (const auto end : ends) {
    auto some = piece(first, end);
    const auto on = gpu->rows(some, B, end - first);
    cpu->cross_entropy_backward({some.data(), B, end - first}, static_cast<std::int32_t>(first),
                                here, scales);
    (*gpu)->cross_entropy_backward(on, static_cast<std::int32_t>(first), there, scales);
    CHECK(worst_difference(gpu->get(on), some) < 1e-5);
    first = end;
  }
}

TEST_CASE("plain arrays: sums, squares and AdamW are the CPU's", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  auto cpu = plain();
  randoms random(8);
  for (const std::int64_t count : {1, 100, 65'536, 200'001}) {
    CAPTURE(count);
    const auto a = random.values(count);
    const auto b = random.values(count);
    floats sum(static_cast<std::size_t>(count));
    cpu->add_arrays(a.data(), b.data(), count, sum.data());
    auto* const on_a = gpu->put(a);
    auto* const into = gpu->put(floats(static_cast<std::size_t>(count)));
    (*gpu)->add_arrays(on_a, gpu->put(b), count, into);
    CHECK(gpu->get(into, count) == sum);
    CHECK((*gpu)->sum_of_squares(on_a, count) ==
          Approx(cpu->sum_of_squares(a.data(), count)).epsilon(1e-12));
    CHECK((*gpu)->sum_of_squares(on_a, count) == (*gpu)->sum_of_squares(on_a, count));

    auto w = random.values(count);
    auto m = random.values(count, 0.1F);
    auto v = random.values(count, 0.1F);
    for (float& one : v) one = std::fabs(one);
    const adamw_step how{
        .learning_rate = 1e-2F, .weight_decay = 0.1F, .gradient_scale = 0.5F, .step = 3};
    auto* const on_w = gpu->put(w);
    auto* const on_m = gpu->put(m);
    auto* const on_v = gpu->put(v);
    cpu->adamw(how, a.data(), count, w.data(), m.data(), v.data());
    (*gpu)->adamw(how, on_a, count, on_w, on_m, on_v);
    CHECK(worst_difference(gpu->get(on_w, count), w) < 1e-6);
    CHECK(worst_difference(gpu->get(on_m, count), m) < 1e-6);
    CHECK(worst_difference(gpu->get(on_v, count), v) < 1e-6);
    // Not a number is told.
    auto broken = a;
    broken.back() = NAN;
    CHECK_FALSE(std::isfinite((*gpu)->sum_of_squares(gpu->put(broken), count)));
  }
}

TEST_CASE("memory goes to the GPU, within it, and back", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  randoms random(9);
  const auto x = random.values(3000);
  auto* const on = gpu->put(x);
  auto* const copy = gpu->put(floats(3000));
  (*gpu)->copy(std::as_bytes(std::span(on, 3000)), reinterpret_cast<std::byte*>(copy));
  CHECK(gpu->get(copy, 3000) == x);
  const auto here = (*gpu)->to_host({copy, 30, 50, 100});
  REQUIRE(here.rows == 30);
  CHECK(here.row(7)[3] == x[703]);
  (*gpu)->fill_zero(std::as_writable_bytes(std::span(copy, 1000)));
  const auto after = gpu->get(copy, 3000);
  CHECK(after[999] == 0.0F);
  CHECK(after[1000] == x[1000]);
}

TEST_CASE("memory of a GPU is zeroed, and refused when there is no room", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  const auto memory = cuda::allocate(0, 1 << 20);
  REQUIRE_FALSE(memory.empty());
  const auto bytes = gpu->get(memory.data(), 1 << 20);
  CHECK(std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; }));
  cuda::release(0, memory);
  CHECK(cuda::allocate(0, std::size_t{1} << 50).empty());
  CHECK(cuda::free_memory(0) > 0);
}

TEST_CASE("a machine without a usable GPU says why in one line") {
  const auto found = cuda::survey();
  if (found.gpus.empty()) {
    CHECK_FALSE(found.why_not.empty());
    CHECK(found.why_not.find('\n') == std::string::npos);
    CHECK(cuda::allocate(0, 1024).empty());
    CHECK(cuda::free_memory(0) == 0);
  }
}
