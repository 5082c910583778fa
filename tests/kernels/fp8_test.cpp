// Eight-bit floats: their numbers, their scales, and that a product over them is one over the
// float32 values they stand for.
#include "kernels/cuda/fp8_layout.hpp"
#include "kernels/e4m3.hpp"
#include "tests/kernels/test_device.hpp"

#include <catch2/catch.hpp>

#include <cstring>
#include <limits>
#include <numeric>
#include <set>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

// Sign, exponent and mantissa by the specification's words.
double number_of(int code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  if (exponent == 15 && mantissa == 7) return std::nan("");
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 7 - 3);
  return code >= 128 ? -magnitude : magnitude;
}

// A bf16 number's bits times 2^120, by whole numbers: threads that compute take subnormal floats as
// 0.
double lifted(std::uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 7U & 255U);
  const int mantissa = static_cast<int>(bits & 127U);
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -126 - 7 + 120)
                                         : std::ldexp(128 + mantissa, exponent - 127 - 7 + 120);
  return (bits & 0x8000U) != 0 ? -magnitude : magnitude;
}

using codes = std::vector<std::uint8_t>;

codes random_codes(randoms& random, std::int64_t count) {
  codes out(static_cast<std::size_t>(count));
  for (auto& code : out) {
    code = static_cast<std::uint8_t>(random.below(256));
    if (is_nan_e4m3(code)) code = 0x7E;
  }
  return out;
}

// A tensor of a file with its scales: rows by columns under one.
struct stored {
  std::int64_t rows, columns;
  std::int64_t block_rows, block_columns;
  codes numbers;
  floats scales;

  stored(randoms& random, std::int64_t r, std::int64_t c, std::int64_t br, std::int64_t bc)
      : rows(r), columns(c), block_rows(br), block_columns(bc) {
    numbers = random_codes(random, r * c);
    for (std::int64_t i = 0; i < (r + br - 1) / br * across(); ++i)
      scales.push_back(0.001F + 0.01F * std::fabs(random.next()));
  }
  std::int64_t across() const { return (columns + block_columns - 1) / block_columns; }
  float at(std::int64_t r, std::int64_t c) const {
    const auto scale = static_cast<std::size_t>(r / block_rows * across() + c / block_columns);
    return float_of_e4m3(numbers[static_cast<std::size_t>(r * columns + c)]) * scales[scale];
  }
  floats values() const {
    floats out;
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < columns; ++c) out.push_back(at(r, c));
    return out;
  }
  // Rows [first, first + count).
  row_source source(std::int64_t first, std::int64_t count) const {
    return {source_format::e4m3,
            reinterpret_cast<const std::byte*>(numbers.data()) + first * columns,
            count,
            {},
            {scales.data(), block_rows, block_columns, across(), first}};
  }
};

std::vector<stored> kinds_of_scales(randoms& random, std::int64_t rows, std::int64_t columns) {
  return {stored(random, rows, columns, rows, columns), stored(random, rows, columns, 1, columns),
          stored(random, rows, columns, 128, 128), stored(random, rows, columns, 1, 256)};
}

}  // namespace

TEST_CASE("the 256 codes of e4m3 are the specification's numbers and come back") {
  for (int code = 0; code < 256; ++code) {
    const auto byte = static_cast<std::uint8_t>(code);
    INFO(code);
    if (is_nan_e4m3(byte)) {
      CHECK(std::isnan(float_of_e4m3(byte)));
      continue;
    }
    CHECK(double{float_of_e4m3(byte)} == number_of(code));
    CHECK(e4m3_of(float_of_e4m3(byte)) == byte);
  }
  CHECK(float_of_e4m3(0x7E) == largest_e4m3);
  CHECK(is_nan_e4m3(e4m3_of(NAN)));
  static_assert(float_of_e4m3(0x38) == 1.0F && e4m3_of(-1.0F) == 0xB8);
}

TEST_CASE("floats become the nearest e4m3 number, ties the even one, the largest at most") {
  for (int code = 0; code < 0x7E; ++code) {
    const double low = number_of(code);
    const double high = number_of(code + 1);
    const double middle = (low + high) / 2;
    const auto even = static_cast<std::uint8_t>(code % 2 == 0 ? code : code + 1);
    INFO(code);
    CHECK(e4m3_of(static_cast<float>(middle)) == even);
    CHECK(e4m3_of(static_cast<float>(-middle)) == (even | 0x80));
    CHECK(e4m3_of(std::nextafter(static_cast<float>(middle), 0.0F)) == code);
    CHECK(e4m3_of(std::nextafter(static_cast<float>(middle), 1e9F)) == code + 1);
  }
  for (const float large : {448.0F, 460.0F, 464.0F, 1e30F, std::numeric_limits<float>::infinity()})
    CHECK(e4m3_of(large) == 0x7E);
}

TEST_CASE("two e4m3 numbers of a word become two bf16 numbers by moving bits") {
  for (std::uint32_t code = 0; code < 256; ++code) {
    if (is_nan_e4m3(static_cast<std::uint8_t>(code))) continue;
    const std::uint32_t other = code ^ 0x55U;
    const std::uint32_t word = code | other << 8U | (255U - code) << 16U | code << 24U;
    const std::uint32_t even = bf16_pair_of_e4m3(word, false);
    const std::uint32_t odd = bf16_pair_of_e4m3(word, true);
    INFO(code);
    CHECK(lifted(even & 0xFFFFU) == number_of(static_cast<int>(code)));
    CHECK(lifted(odd >> 16U) == number_of(static_cast<int>(code)));
    if (!is_nan_e4m3(static_cast<std::uint8_t>(other)))
      CHECK(lifted(odd & 0xFFFFU) == number_of(static_cast<int>(other)));
    if (!is_nan_e4m3(static_cast<std::uint8_t>(255U - code)))
      CHECK(lifted(even >> 16U) == number_of(static_cast<int>(255U - code)));
  }
}

// What a lane of a warp loads is 16 bytes at lane * 16 of a half of the group (products_mma.cuh):
// row lane / 4, and columns 8t..8t+7 of either 32 in pairs, t = lane % 4.
TEST_CASE("a GPU's tile of fp8 has every number once, and each lane's pairs are its columns") {
  randoms random(21);
  for (const std::int64_t columns : {1, 31, 64, 65, 128, 200, 333}) {
    INFO(columns << " columns");
    const std::int64_t groups = (columns + 63) / 64;
    const std::int64_t blocks = (columns + 127) / 128;
    std::vector<std::byte> tile(static_cast<std::size_t>(groups * cuda::fp8_group_bytes),
                                std::byte{0xA5});
    std::vector<codes> rows;
    std::vector<floats> scales;
    for (int lane = 0; lane < 16; ++lane) {
      rows.push_back(random_codes(random, columns));
      scales.push_back(random.values(blocks));
      std::vector<std::byte> row(static_cast<std::size_t>(blocks * 4 + columns));
      std::memcpy(row.data(), scales.back().data(), static_cast<std::size_t>(blocks * 4));
      std::memcpy(row.data() + blocks * 4, rows.back().data(), static_cast<std::size_t>(columns));
      // Row 11 is one that nobody has.
      for (std::int64_t block = 0; block < groups * 2; ++block)
        cuda::put_fp8_block(lane == 11 ? nullptr : row.data(), columns, block, tile.data(), lane);
      if (lane == 11) rows.back().assign(rows.back().size(), 0);
    }
    std::set<std::int64_t> places;
    for (int row = 0; row < 16; ++row) {
      for (std::int64_t k = 0; k < groups * 64; ++k) {
        const std::int64_t at = cuda::fp8_number_at(row, k);
        REQUIRE(at < std::ssize(tile));
        places.insert(at);
        const auto code = std::to_integer<std::uint8_t>(tile[static_cast<std::size_t>(at)]);
        const auto& of = rows[static_cast<std::size_t>(row)];
        REQUIRE(code == (k < columns ? of[static_cast<std::size_t>(k)] : 0));
        float scale = 0.0F;
        std::memcpy(&scale, tile.data() + cuda::fp8_scale_at(row, k), 4);
        const auto block = static_cast<std::size_t>(std::min(k / 128, blocks - 1));
        REQUIRE(scale == (row == 11 ? 0.0F : scales[static_cast<std::size_t>(row)][block]));
        if (k % 64 == 0)
          for (int i = 0; i < 4; ++i) places.insert(cuda::fp8_scale_at(row, k) + i);
      }
    }
    CHECK(std::ssize(places) == std::ssize(tile));

    for (std::int64_t group = 0; group < groups; ++group) {
      for (int lane = 0; lane < 64; ++lane) {  // rows 8 and on are a second load, 512 further on
        std::uint32_t words[4];
        std::memcpy(words, tile.data() + group * cuda::fp8_group_bytes + lane * 16, 16);
        for (int i = 0; i < 8; ++i) {
          const std::uint32_t pair = cuda::fp8_pair(words[i / 4 * 2], words[i / 4 * 2 + 1], i % 4);
          const std::int64_t k = group * 64 + i / 4 * 32 + lane % 4 * 8 + i % 4 * 2;
          for (int half = 0; half < 2; ++half) {
            const auto& of = rows[static_cast<std::size_t>(lane / 4)];
            const float wanted =
                k + half < columns ? float_of_e4m3(of[static_cast<std::size_t>(k + half)]) : 0.0F;
            REQUIRE(lifted(pair >> (16 * half) & 0xFFFFU) == double{wanted});
          }
        }
      }
    }
  }
}

TEST_CASE(
    "every kind of scales of an FP8 file is kept to the bit, in pieces and in another order") {
  for (const auto set : cpu::supported_instruction_sets()) {
    test_device device(set, 2);
    for (const std::int64_t columns : {1, 33, 128, 160, 300}) {
      randoms random(3);
      const std::int64_t rows = 150;
      for (const stored& file : kinds_of_scales(random, rows, columns)) {
        INFO(name_of(set) << ", " << columns << " columns, scales of " << file.block_rows << " by "
                          << file.block_columns);
        const packed_matrix whole = device.room(weight_format::fp8, rows, columns);
        device->pack(whole, 0, file.source(0, rows));
        CHECK(device.unpacked(whole) == file.values());

        const packed_matrix pieces = device.room(weight_format::fp8, rows, columns);
        device->pack(pieces, 0, file.source(0, 37));
        device->pack(pieces, 37, file.source(37, 100));
        device->pack(pieces, 137, file.source(137, 13));
        CHECK(device.unpacked(pieces) == file.values());

        // The second half of the file's rows, last row first.
        std::vector<std::int32_t> order(75);
        std::iota(order.rbegin(), order.rend(), 0);
        const packed_matrix turned = device.room(weight_format::fp8, 75, columns);
        row_source source = file.source(75, 75);
        source.order = order;
        device->pack(turned, 0, source);
        floats row(static_cast<std::size_t>(columns));
        for (std::int64_t r = 0; r < 75; ++r) {
          device->unpack_row(turned, r, row.data());
          for (std::int64_t c = 0; c < columns; ++c)
            REQUIRE(row[static_cast<std::size_t>(c)] == file.at(149 - r, c));
        }
      }
    }
  }
}

TEST_CASE("FP8 files become every other format as their float32 values would") {
  randoms random(5);
  test_device device(cpu::best_instruction_set());
  for (const stored& file : kinds_of_scales(random, 40, 320)) {
    for (const weight_format format : all_formats) {
      if (format == weight_format::fp8) continue;
      INFO(name_of(format) << ", scales of " << file.block_rows << " by " << file.block_columns);
      const packed_matrix w = device.room(format, 40, 320);
      device->pack(w, 0, file.source(0, 40));
      CHECK(device.unpacked(w) == device.unpacked(device.packed(format, 40, 320, file.values())));
    }
  }
  // Scales that do not hold for 128 columns are rounded once more.
  const stored narrow(random, 40, 320, 1, 64);
  const packed_matrix w = device.room(weight_format::fp8, 40, 320);
  device->pack(w, 0, narrow.source(0, 40));
  CHECK(device.unpacked(w) ==
        device.unpacked(device.packed(weight_format::fp8, 40, 320, narrow.values())));
}

TEST_CASE("floats become fp8 with the largest of 128 columns as 448, each to the nearest number") {
  randoms random(6);
  test_device device(cpu::best_instruction_set());
  for (const std::int64_t columns : {64, 128, 200}) {
    floats values = random.values(5 * columns, 3.0F);
    std::fill_n(values.begin(), columns, 0.0F);  // a row of zeros
    values[static_cast<std::size_t>(columns)] = 1e-7F;
    const floats got = device.unpacked(device.packed(weight_format::fp8, 5, columns, values));
    for (std::int64_t at = 0; at < 5 * columns; at += 1) {
      const std::int64_t row = at / columns * columns;
      const std::int64_t first = row + at % columns / 128 * 128;
      const std::int64_t end = std::min(first + 128, row + columns);
      float largest = 0.0F;
      for (std::int64_t k = first; k < end; ++k)
        largest = std::max(largest, std::fabs(values[static_cast<std::size_t>(k)]));
      const double scale = largest / 448.0F;
      const double value = values[static_cast<std::size_t>(at)];
      // Half a step: 2^-4 of a number, or 2^-10 of the scale where numbers are subnormal.
      const double room = std::max(std::fabs(value) / 16.0, scale * 0x1p-10) * 1.00001;
      INFO("value " << at << " of " << columns);
      CHECK(std::fabs(double{got[static_cast<std::size_t>(at)]} - value) <= room);
      if (std::fabs(value) == largest && largest > 0.0F)
        CHECK(got[static_cast<std::size_t>(at)] == Approx(value).epsilon(1e-6));
    }
  }
}

TEST_CASE("what is not finite makes its 128 columns NaN and no others") {
  test_device device(cpu::best_instruction_set());
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    floats values(256, 0.5F);
    values[130] = bad;
    const floats got = device.unpacked(device.packed(weight_format::fp8, 1, 256, values));
    for (std::size_t k = 0; k < 256; ++k) CHECK(std::isnan(got[k]) == (k >= 128));
  }
  randoms random(8);
  stored file(random, 1, 256, 1, 256);
  file.numbers[3] = 0xFF;
  const packed_matrix w = device.room(weight_format::fp8, 1, 256);
  device->pack(w, 0, file.source(0, 1));
  const floats got = device.unpacked(w);
  for (std::size_t k = 0; k < 256; ++k) CHECK(std::isnan(got[k]) == (k < 128));
  const floats x(256, 1.0F);
  float y = 0.0F;
  device->linear({x.data(), 1, 256}, w, nullptr, false, {&y, 1, 1});
  CHECK(std::isnan(y));
}

TEST_CASE("products over fp8 are those over float32 of the same values, to the bit") {
  for (const auto set : cpu::supported_instruction_sets()) {
    test_device device(set, 2, training_limits());
    for (const std::int64_t K : {1, 96, 129, 300, 576}) {
      randoms random(9);
      const std::int64_t N = 70, T = 37;
      const stored file(random, N, K, 128, 128);
      const packed_matrix w = device.room(weight_format::fp8, N, K);
      device->pack(w, 0, file.source(0, N));
      const packed_matrix f32 = device.packed(weight_format::f32, N, K, file.values());
      INFO(name_of(set) << " K=" << K);
      const floats x = random.values(T * K);
      for (const std::int64_t rows : {1, 2, 4, 8, 14, 37}) {
        floats y(static_cast<std::size_t>(rows * N)), truth(y.size());
        device->linear({x.data(), rows, K}, w, nullptr, false, {y.data(), rows, N});
        device->linear({x.data(), rows, K}, f32, nullptr, false, {truth.data(), rows, N});
        CHECK(y == truth);
      }
      const floats dy = random.values(T * N);
      floats dx(static_cast<std::size_t>(T * K)), truth(dx.size());
      device->linear_backward_input({dy.data(), T, N}, w, false, {dx.data(), T, K});
      device->linear_backward_input({dy.data(), T, N}, f32, false, {truth.data(), T, K});
      CHECK(dx == truth);

      const stored up(random, N, K, 1, K);
      const packed_matrix gated = device.room(weight_format::fp8, 2 * N, K);
      device->pack_gated(gated, file.source(0, N), up.source(0, N));
      const packed_matrix gated_f32 =
          device.packed_gated(weight_format::f32, N, K, file.values(), up.values());
      floats h(static_cast<std::size_t>(T * N)), h_truth(h.size());
      device->linear_gated({x.data(), T, K}, gated, activation::silu, {h.data(), T, N});
      device->linear_gated({x.data(), T, K}, gated_f32, activation::silu, {h_truth.data(), T, N});
      CHECK(h == h_truth);
    }
  }
}
