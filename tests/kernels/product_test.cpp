#include "tests/kernels/test_device.hpp"

#include <catch2/catch.hpp>

#include <array>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

struct shape {
  std::int64_t T, K, N;
};

// Odd sizes for floats; whole blocks of 32 for the others, odd counts of them included.
std::vector<shape> shapes_of(weight_format format) {
  if (is_block(format)) {
    return {{1, 32, 1}, {3, 96, 31}, {33, 576, 48}, {64, 992, 33}, {5, 64, 1000}};
  }
  return {{1, 1, 1}, {3, 31, 33}, {31, 33, 31}, {64, 1000, 48}, {7, 48, 1000}};
}

// Activations that int8 holds exactly: whole numbers with a 127 in each block of 32.
floats whole_numbers(randoms& random, std::int64_t rows, std::int64_t columns) {
  floats x(static_cast<std::size_t>(rows * columns));
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = i % 32 == 5 ? 127.0F : static_cast<float>(random.below(255) - 127);
  }
  return x;
}

std::vector<double> true_product(test_device& device, const packed_matrix& w, const floats& x,
                                 std::int64_t rows) {
  std::vector<double> y;
  floats weights(static_cast<std::size_t>(w.rows * w.columns));
  for (std::int64_t n = 0; n < w.rows; ++n) {
    device->unpack_row(w, n, weights.data() + n * w.columns);
  }
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t n = 0; n < w.rows; ++n) {
      double sum = 0.0;
      for (std::int64_t k = 0; k < w.columns; ++k) {
        sum += double{x[static_cast<std::size_t>(t * w.columns + k)]} *
               double{weights[static_cast<std::size_t>(n * w.columns + k)]};
      }
      y.push_back(sum);
    }
  }
  return y;
}

floats product(test_device& device, const packed_matrix& w, const floats& x, std::int64_t rows) {
  floats y(static_cast<std::size_t>(rows * w.rows), -7.0F);
  device->linear({x.data(), rows, w.columns}, w, nullptr, false, {y.data(), rows, w.rows});
  return y;
}

}  // namespace

TEST_CASE("this machine's instruction sets are named") {
  std::string names;
  for (const auto set : cpu::supported_instruction_sets()) names += std::string(name_of(set)) + " ";
  WARN("instruction sets under test: " << names);
  for (const auto set : cpu::supported_instruction_sets()) {
    CHECK(cpu::instruction_set_from(name_of(set)) == set);
    CHECK(test_device(set)->name() == "cpu " + std::string(name_of(set)));
  }
  CHECK_FALSE(cpu::instruction_set_from("avx1024").has_value());
}

TEST_CASE("a product is as exact as the plain kernel's in every format and odd size") {
  for (const weight_format format : all_formats) {
    for (const auto& [T, K, N] : shapes_of(format)) {
      randoms random(7);
      const floats weights = random.values(N * K, 0.1F);
      const floats x = is_block(format) ? whole_numbers(random, T, K) : random.values(T * K);
      test_device plain(cpu::instruction_set::reference);
      const packed_matrix plain_w = plain.packed(format, N, K, weights);
      const std::vector<double> truth = true_product(plain, plain_w, x, T);
      const double plain_error = largest_error(product(plain, plain_w, x, T), truth);
      INFO(name_of(format) << " T=" << T << " K=" << K << " N=" << N);
      CHECK(plain_error <= 3e-6 * std::sqrt(static_cast<double>(K)) * (1.0 + largest_of(truth)));
      for (const auto set : fast_sets()) {
        INFO(name_of(set));
        test_device device(set);
        const packed_matrix w = device.packed(format, N, K, weights);
        CHECK(largest_error(product(device, w, x, T), truth) <=
              2.0 * plain_error + 1e-7 * (1.0 + largest_of(truth)));
      }
    }
  }
}

TEST_CASE("rounding activations to int8 costs a block product less than one part in a hundred") {
  for (const weight_format format :
       {weight_format::q8_0, weight_format::q4_0, weight_format::q4_1}) {
    randoms random(11);
    const floats weights = random.values(48 * 576, 0.1F);
    const floats x = random.values(5 * 576);
    for (const auto set : cpu::supported_instruction_sets()) {
      INFO(name_of(format) << " " << name_of(set));
      test_device device(set);
      const packed_matrix w = device.packed(format, 48, 576, weights);
      const std::vector<double> truth = true_product(device, w, x, 5);
      CHECK(largest_error(product(device, w, x, 5), truth) <= 0.01 * largest_of(truth));
    }
  }
}

TEST_CASE("extreme quants do not saturate: -128 and 127 of q8_0 against -127 and 127") {
  for (const auto set : cpu::supported_instruction_sets()) {
    test_device device(set);
    for (const int quant : {-128, 127}) {
      std::vector<std::byte> row(34 * 2, static_cast<std::byte>(quant));
      for (std::size_t b = 0; b < 2; ++b) {
        row[34 * b] = std::byte{0x00};  // scale 1.0 as f16
        row[34 * b + 1] = std::byte{0x3C};
      }
      const packed_matrix w = device.room(weight_format::q8_0, 1, 64);
      device->pack(w, 0, {source_format::q8_0, row.data(), 1, {}});
      for (const float x : {-127.0F, 127.0F}) {
        INFO(name_of(set) << " " << quant << " * " << x);
        CHECK(product(device, w, floats(64, x), 1)[0] == 64.0F * static_cast<float>(quant) * x);
      }
    }
  }
}

TEST_CASE("a row's product is the same to the bit alone, among 37 rows and on two threads") {
  for (const auto set : cpu::supported_instruction_sets()) {
    test_device one(set, 1);
    test_device two(set, 2);
    for (const weight_format format : all_formats) {
      randoms random(3);
      const std::int64_t K = is_block(format) ? 160 : 161;
      const std::int64_t N = 75;
      const floats weights = random.values(N * K);
      const floats x = random.values(37 * K);
      const packed_matrix w = one.packed(format, N, K, weights);
      const floats together = product(one, w, x, 37);
      INFO(name_of(set) << " " << name_of(format));
      CHECK(product(two, w, x, 37) == together);
      for (const std::int64_t t : {0, 1, 13, 36}) {
        const floats alone(x.begin() + t * K, x.begin() + (t + 1) * K);
        CHECK(product(one, w, alone, 1) ==
              floats(together.begin() + t * N, together.begin() + (t + 1) * N));
      }
    }
  }
}

TEST_CASE("all fast instruction sets give the same bits") {
  for (const weight_format format : all_formats) {
    randoms random(5);
    const floats weights = random.values(75 * 224);
    const floats x = random.values(37 * 224);
    floats first;
    for (const auto set : fast_sets()) {
      INFO(name_of(format) << " " << name_of(set));
      test_device device(set);
      const floats y = product(device, device.packed(format, 75, 224, weights), x, 37);
      if (first.empty()) first = y;
      CHECK(y == first);
    }
  }
}

TEST_CASE("bias and sum onto what is there reach only the outputs that exist") {
  const std::int64_t T = 3, K = 32, N = 21, stride = 24;
  randoms random(9);
  const floats weights = random.values(N * K);
  const floats bias = random.values(N);
  const floats x = random.values(T * K);
  for (const auto set : cpu::supported_instruction_sets()) {
    test_device device(set);
    const packed_matrix w = device.packed(weight_format::f32, N, K, weights);
    const floats plain = product(device, w, x, T);
    floats y(static_cast<std::size_t>(T * stride), 2.0F);
    device->linear({x.data(), T, K}, w, bias.data(), true, {y.data(), T, N, stride});
    for (std::int64_t t = 0; t < T; ++t) {
      for (std::int64_t n = 0; n < stride; ++n) {
        const float got = y[static_cast<std::size_t>(t * stride + n)];
        INFO(name_of(set) << " row " << t << " column " << n);
        if (n >= N) {
          CHECK(got == 2.0F);
        } else {
          CHECK(got == Approx(2.0F + plain[static_cast<std::size_t>(t * N + n)] +
                              bias[static_cast<std::size_t>(n)]));
        }
      }
    }
  }
}

TEST_CASE("a gated product is the activation of the gate times up") {
  const std::int64_t T = 5;
  for (const activation act : {activation::silu, activation::gelu_tanh}) {
    for (const weight_format format : all_formats) {
      for (const std::int64_t F : {1, 31, 96}) {
        const std::int64_t K = 64;
        randoms random(21);
        const floats gate = random.values(F * K, 0.5F);
        const floats up = random.values(F * K, 0.5F);
        const floats x = whole_numbers(random, T, K);
        double plain_error = 0.0;
        for (const auto set : cpu::supported_instruction_sets()) {
          test_device device(set);
          const auto g = true_product(device, device.packed(format, F, K, gate), x, T);
          const auto u = true_product(device, device.packed(format, F, K, up), x, T);
          std::vector<double> truth;
          for (std::size_t i = 0; i < g.size(); ++i) {
            const double inner = 0.7978845608028654 * (g[i] + 0.044715 * g[i] * g[i] * g[i]);
            truth.push_back(u[i] * (act == activation::silu
                                        ? g[i] / (1.0 + std::exp(-g[i]))
                                        : 0.5 * g[i] * (1.0 + std::tanh(inner))));
          }
          const packed_matrix w = device.packed_gated(format, F, K, gate, up);
          floats y(static_cast<std::size_t>(T * F), -7.0F);
          device->linear_gated({x.data(), T, K}, w, act, {y.data(), T, F});
          const double error = largest_error(y, truth);
          INFO(name_of(set) << " " << name_of(format) << " F=" << F);
          if (set == cpu::instruction_set::reference) plain_error = error;
          CHECK(plain_error <= 3e-6 * (1.0 + largest_of(truth)));
          CHECK(error <= 2.0 * plain_error + 1e-6 * (1.0 + largest_of(truth)));
        }
      }
    }
  }
}

TEST_CASE("zeros, huge and tiny activations keep block products finite") {
  for (const auto set : cpu::supported_instruction_sets()) {
    test_device device(set);
    randoms random(2);
    const packed_matrix w = device.packed(weight_format::q4_1, 16, 64, random.values(16 * 64));
    CHECK(product(device, w, floats(64, 0.0F), 1) == floats(16, 0.0F));
    for (const float x : {1e-38F, 1e-31F, 1e30F}) {
      for (const float y : product(device, w, floats(64, x), 1)) CHECK(std::isfinite(y));
    }
  }
}

TEST_CASE("a mixture adds each chosen expert's output by its weight, in order of expert id") {
  const std::int64_t T = 9, D = 64, F = 33, E = 8;
  const int chosen = 3;
  for (const weight_format format : {weight_format::f32, weight_format::q8_0}) {
    randoms random(17);
    std::vector<std::array<floats, 3>> experts;
    for (int e = 0; e < E; ++e) {
      experts.push_back(
          {random.values(F * D, 0.3F), random.values(F * D, 0.3F), random.values(D * 64, 0.3F)});
    }
    const floats h = random.values(T * D);
    const floats logits = random.values(T * E, 3.0F);
    floats first;
    for (const auto set : cpu::supported_instruction_sets()) {
      for (const int threads : {1, 2}) {
        // The feed-forward of block formats wants whole blocks: 64 wide there.
        const std::int64_t hidden = is_block(format) ? 64 : F;
        test_device device(set, threads);
        std::vector<expert_matrices> packed;
        for (const auto& [gate, up, down] : experts) {
          floats gate_rows = gate;
          floats up_rows = up;
          gate_rows.resize(static_cast<std::size_t>(hidden * D), 0.01F);
          up_rows.resize(static_cast<std::size_t>(hidden * D), 0.02F);
          packed.push_back({device.packed_gated(format, hidden, D, gate_rows, up_rows),
                            device.packed(format, D, hidden, down)});
        }
        std::vector<std::int32_t> ids(static_cast<std::size_t>(T * chosen));
        floats weights(static_cast<std::size_t>(T * chosen));
        const moe_routes routes{chosen, ids.data(), weights.data()};
        device->moe_route({logits.data(), T, E}, true, routes);
        floats x(static_cast<std::size_t>(T * D), 0.25F);
        device->moe({h.data(), T, D}, routes, packed, activation::silu, {x.data(), T, D});

        floats expected(static_cast<std::size_t>(T * D), 0.25F);
        for (std::int64_t t = 0; t < T; ++t) {
          for (std::int32_t e = 0; e < E; ++e) {
            for (int j = 0; j < chosen; ++j) {
              const auto at = static_cast<std::size_t>(t * chosen + j);
              if (ids[at] != e) continue;
              floats middle(static_cast<std::size_t>(hidden));
              floats out(static_cast<std::size_t>(D));
              const auto index = static_cast<std::size_t>(e);
              device->linear_gated({h.data() + t * D, 1, D}, packed[index].gate_up_FD,
                                   activation::silu, {middle.data(), 1, hidden});
              device->linear({middle.data(), 1, hidden}, packed[index].down_DF, nullptr, false,
                             {out.data(), 1, D});
              for (std::int64_t c = 0; c < D; ++c) {
                expected[static_cast<std::size_t>(t * D + c)] +=
                    weights[at] * out[static_cast<std::size_t>(c)];
              }
            }
          }
        }
        INFO(name_of(set) << " " << name_of(format) << " threads " << threads);
        CHECK(x == expected);
      }
    }
  }
}
