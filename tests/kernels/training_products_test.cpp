#include "tests/kernels/differences.hpp"

#include <catch2/catch.hpp>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

struct shape {
  std::int64_t T, X, Y;
};

const std::vector<shape> odd_shapes{{1, 1, 1},    {3, 31, 33},    {33, 17, 31},
                                    {64, 48, 96}, {31, 100, 650}, {5, 161, 1300}};

// Rows with strangers behind them: a column slice of something wider.
struct slice {
  floats values;
  std::int64_t rows, columns, stride;

  slice(randoms& random, std::int64_t r, std::int64_t c)
      : values(random.values(r * (c + 5))), rows(r), columns(c), stride(c + 5) {}
  rows_in in() const { return {values.data(), rows, columns, stride}; }
  float at(std::int64_t r, std::int64_t c) const {
    return values[static_cast<std::size_t>(r * stride + c)];
  }
};

std::vector<row_segment> slots_of(std::int64_t rows, const std::vector<std::int64_t>& counts) {
  std::vector<row_segment> slots;
  std::int64_t first = 0;
  for (const std::int64_t count : counts) {
    slots.push_back({first, std::min(count, rows - first)});
    first += slots.back().row_count;
  }
  slots.back().row_count += rows - first;
  return slots;
}

floats sum_of(backend& device, const floats& a, const floats& b) {
  floats sum(a.size());
  device.add_arrays(a.data(), b.data(), std::ssize(a), sum.data());
  return sum;
}

}  // namespace

TEST_CASE("a product's input gradient is dy w in every weight format, added or not") {
  for (const weight_format format : all_formats) {
    for (auto [T, X, Y] : odd_shapes) {
      if (is_block(format)) X = (X + 31) / 32 * 32;
      randoms random(31);
      const floats weights = random.values(Y * X, 0.1F);
      const slice dy(random, T, Y);
      const floats before = random.values(T * X);
      test_device plain(cpu::instruction_set::reference, 1, training_limits());
      const floats w = plain.unpacked(plain.packed(format, Y, X, weights));
      doubles truth;
      doubles added;
      for (std::int64_t t = 0; t < T; ++t) {
        for (std::int64_t x = 0; x < X; ++x) {
          double sum = 0.0;
          for (std::int64_t y = 0; y < Y; ++y) {
            sum += double{dy.at(t, y)} * double{w[static_cast<std::size_t>(y * X + x)]};
          }
          truth.push_back(sum);
          added.push_back(sum + double{before[static_cast<std::size_t>(t * X + x)]});
        }
      }
      exactness exact(truth);
      exactness exact_added(added);
      for (const auto set : cpu::supported_instruction_sets()) {
        INFO(name_of(set) << " " << name_of(format) << " T=" << T << " X=" << X << " Y=" << Y);
        floats one_thread;
        for (const int threads : {1, 2, 3}) {
          test_device device(set, threads, training_limits());
          const packed_matrix packed = device.packed(format, Y, X, weights);
          floats dx(static_cast<std::size_t>(T * X), -7.0F);
          device->linear_backward_input(dy.in(), packed, false, {dx.data(), T, X});
          CHECK(exact.holds(set, dx, 1e-5));
          if (threads == 1) one_thread = dx;
          CHECK(dx == one_thread);
          dx = before;
          device->linear_backward_input(dy.in(), packed, true, {dx.data(), T, X});
          CHECK(exact_added.holds(set, dx, 1e-5));
        }
      }
    }
  }
}

TEST_CASE("a row of dx does not depend on the rows beside it") {
  randoms random(5);
  const std::int64_t T = 29, X = 48, Y = 700;
  const floats dy = random.values(T * Y);
  const floats weights = random.values(Y * X);
  for (const auto set : cpu::supported_instruction_sets()) {
    test_device device(set, 1, training_limits());
    const packed_matrix w = device.packed(weight_format::f32, Y, X, weights);
    floats together(static_cast<std::size_t>(T * X));
    device->linear_backward_input({dy.data(), T, Y}, w, false, {together.data(), T, X});
    floats alone(static_cast<std::size_t>(X));
    for (const std::int64_t t : {0, 13, 28}) {
      device->linear_backward_input({dy.data() + t * Y, 1, Y}, w, false, {alone.data(), 1, X});
      CHECK(std::equal(alone.begin(), alone.end(), together.begin() + t * X));
    }
  }
}

TEST_CASE("a product's weight gradient is dy^T x, added to what was there, zeros behind the rows") {
  for (const auto& [T, X, Y] : odd_shapes) {
    randoms random(32);
    const slice dy(random, T, Y);
    const slice x(random, T, X);
    doubles truth;
    for (std::int64_t y = 0; y < Y; ++y) {
      for (std::int64_t i = 0; i < X; ++i) {
        double sum = 0.5;
        for (std::int64_t t = 0; t < T; ++t) sum += double{dy.at(t, y)} * double{x.at(t, i)};
        truth.push_back(sum);
      }
    }
    exactness exact(truth);
    const auto slots = slots_of(T, {3, 0, 7, 20, 1});
    for (const auto set : cpu::supported_instruction_sets()) {
      INFO(name_of(set) << " T=" << T << " X=" << X << " Y=" << Y);
      floats one_thread;
      for (const int threads : {1, 2, 3}) {
        test_device device(set, threads, training_limits());
        const packed_matrix dw =
            device.packed(weight_format::f32, Y, X, floats(static_cast<std::size_t>(Y * X), 0.5F));
        device->linear_backward_weights(dy.in(), x.in(), slots, dw);
        const floats got = device.unpacked(dw);
        CHECK(exact.holds(set, got, 1e-5));
        if (threads == 1) one_thread = got;
        CHECK(got == one_thread);
        // As a whole panel it would show what lies behind its last row.
        packed_matrix whole = dw;
        whole.rows = (Y + 15) / 16 * 16;
        floats behind(static_cast<std::size_t>(X));
        for (std::int64_t r = Y; r < whole.rows; ++r) {
          device->unpack_row(whole, r, behind.data());
          CHECK(behind == floats(behind.size(), 0.0F));
        }
      }
    }
  }
}

TEST_CASE("slots: one device of four, two of two and four of one give the same bits") {
  const std::int64_t T = 150, X = 37, Y = 50;
  randoms random(33);
  const slice dy(random, T, Y);
  const slice x(random, T, X);
  const floats before = random.values(Y * X);
  for (const std::vector<std::int64_t>& counts :
       {std::vector<std::int64_t>{40, 30, 60, 20}, {150, 0, 0, 0}, {0, 75, 1, 74}}) {
    const auto slots = slots_of(T, counts);
    for (const auto set : cpu::supported_instruction_sets()) {
      INFO(name_of(set));
      test_device device(set, 2, training_limits());
      // The gradient of slots [begin, end) alone, as a device that has only those computes it.
      const auto weights_of = [&](std::size_t begin, std::size_t end, const floats& held) {
        const std::int64_t first = slots[begin].first_row;
        std::vector<row_segment> mine(slots.begin() + static_cast<std::ptrdiff_t>(begin),
                                      slots.begin() + static_cast<std::ptrdiff_t>(end));
        std::int64_t rows = 0;
        for (row_segment& slot : mine) {
          slot.first_row -= first;
          rows += slot.row_count;
        }
        const packed_matrix dw = device.packed(weight_format::f32, Y, X, held);
        device->linear_backward_weights({dy.values.data() + first * dy.stride, rows, Y, dy.stride},
                                        {x.values.data() + first * x.stride, rows, X, x.stride},
                                        mine, dw);
        return device.unpacked(dw);
      };
      const floats zero(static_cast<std::size_t>(Y * X), 0.0F);
      const floats four = weights_of(0, 4, zero);
      CHECK(four == sum_of(*device, weights_of(0, 2, zero), weights_of(2, 4, zero)));
      CHECK(four == sum_of(*device, sum_of(*device, weights_of(0, 1, zero), weights_of(1, 2, zero)),
                           sum_of(*device, weights_of(2, 3, zero), weights_of(3, 4, zero))));
      // What the gradient held comes in once, at the end.
      CHECK(weights_of(0, 4, before) == sum_of(*device, before, four));
      // Three: sum(0, 3) = sum(0, 1) + sum(1, 3).
      CHECK(weights_of(0, 3, zero) ==
            sum_of(*device, weights_of(0, 1, zero),
                   sum_of(*device, weights_of(1, 2, zero), weights_of(2, 3, zero))));
    }
  }
}

TEST_CASE("a bias's gradient is the column sums of dy, by the slot tree") {
  for (const std::int64_t Y : {1, 31, 33, 200}) {
    const std::int64_t T = 77;
    randoms random(34);
    const slice dy(random, T, Y);
    const auto slots = slots_of(T, {20, 17, 0, 40});
    doubles truth(static_cast<std::size_t>(Y), 0.25);
    for (std::int64_t t = 0; t < T; ++t) {
      for (std::int64_t y = 0; y < Y; ++y)
        truth[static_cast<std::size_t>(y)] += double{dy.at(t, y)};
    }
    exactness exact(truth);
    for (const auto set : cpu::supported_instruction_sets()) {
      INFO(name_of(set) << " Y=" << Y);
      test_device device(set, 2, training_limits());
      floats db(static_cast<std::size_t>(Y), 0.25F);
      device->bias_backward(dy.in(), slots, db.data());
      CHECK(exact.holds(set, db, 1e-5));
      for (std::int64_t y = 0; y < Y; ++y) {
        float parts[4] = {};
        for (std::size_t s = 0; s < 4; ++s) {
          for (std::int64_t i = 0; i < slots[s].row_count; ++i) {
            parts[s] += dy.at(slots[s].first_row + i, y);
          }
        }
        CHECK(db[static_cast<std::size_t>(y)] ==
              0.25F + ((parts[0] + parts[1]) + (parts[2] + parts[3])));
      }
    }
  }
}

TEST_CASE("rows of a matrix and a gated matrix used as linear are the same memory") {
  randoms random(35);
  const std::int64_t F = 33, D = 64, T = 7;
  const floats gate = random.values(F * D), up = random.values(F * D), x = random.values(T * D);
  for (const auto set : cpu::supported_instruction_sets()) {
    for (const weight_format format : all_formats) {
      INFO(name_of(set) << " " << name_of(format));
      test_device device(set, 1, training_limits());
      const packed_matrix w = device.packed(format, F, D, gate);
      floats whole(static_cast<std::size_t>(T * F));
      floats part(static_cast<std::size_t>(T * 17));
      device->linear({x.data(), T, D}, w, nullptr, false, {whole.data(), T, F});
      device->linear({x.data(), T, D}, device->rows_of(w, 16, 17), nullptr, false,
                     {part.data(), T, 17});
      for (std::size_t t = 0; t < T; ++t) {
        for (std::size_t i = 0; i < 17; ++i) REQUIRE(part[t * 17 + i] == whole[t * F + 16 + i]);
      }

      const packed_matrix gated = device.packed_gated(format, F, D, gate, up);
      const packed_matrix alias = device->gated_as_linear(gated);
      REQUIRE(alias.rows == 96);
      floats both(static_cast<std::size_t>(T * 96));
      floats y(static_cast<std::size_t>(T * F));
      floats fused(static_cast<std::size_t>(T * F));
      device->linear({x.data(), T, D}, alias, nullptr, false, {both.data(), T, 96});
      device->activate_gated({both.data(), T, 96}, activation::silu, {y.data(), T, F});
      device->linear_gated({x.data(), T, D}, gated, activation::silu, {fused.data(), T, F});
      for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(y[i] == Approx(fused[i]).margin(1e-5));

      const packed_matrix up_alone = device.packed(format, F, D, up);
      floats row(64), expected(64);
      for (const std::int64_t r : {0, 15, 16, 32}) {
        device->unpack_gated_row(gated, true, r, row.data());
        device->unpack_row(up_alone, r, expected.data());
        CHECK(row == expected);
        device->unpack_gated_row(gated, false, r, row.data());
        device->unpack_row(w, r, expected.data());
        CHECK(row == expected);
      }
    }
  }
}
