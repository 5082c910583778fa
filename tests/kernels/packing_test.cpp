#include "kernels/cpu/half.hpp"
#include "kernels/cpu/source_formats.hpp"
#include "tests/kernels/test_device.hpp"

#include <catch2/catch.hpp>

#include <cstring>
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

const std::map<std::string, source_format> source_names = {
    {"f16", source_format::f16},   {"bf16", source_format::bf16}, {"q8_0", source_format::q8_0},
    {"q4_0", source_format::q4_0}, {"q4_1", source_format::q4_1}, {"q5_0", source_format::q5_0},
    {"q5_1", source_format::q5_1}, {"q4_k", source_format::q4_k}, {"q5_k", source_format::q5_k},
    {"q6_k", source_format::q6_k}};
const std::map<std::string, weight_format> weight_names = {{"f16", weight_format::f16},
                                                           {"bf16", weight_format::bf16},
                                                           {"q8_0", weight_format::q8_0},
                                                           {"q4_0", weight_format::q4_0},
                                                           {"q4_1", weight_format::q4_1}};

using bytes = std::vector<std::byte>;

bytes from_hex(const std::string& hex) {
  bytes out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    out.push_back(static_cast<std::byte>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return out;
}

struct golden_row {
  bool encode = false;
  std::string format;
  std::int64_t columns = 0;
  bytes row;
  floats values;
};

// tests/golden/quant/rows.txt: a "decode" line's values follow it, an "encode" line's precede it.
std::vector<golden_row> golden_rows() {
  std::ifstream file(TANDEM_GOLDEN "/quant/rows.txt");
  std::vector<golden_row> rows;
  floats values;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string kind;
    words >> kind;
    if (kind == "values") {
      values.clear();
      for (std::string word; words >> word;) values.push_back(std::strtof(word.c_str(), nullptr));
      if (!rows.empty() && !rows.back().encode && rows.back().values.empty()) {
        rows.back().values = values;
      }
    } else if (kind == "decode" || kind == "encode") {
      golden_row row;
      std::string hex;
      words >> row.format >> row.columns >> hex;
      row.encode = kind == "encode";
      row.row = from_hex(hex);
      if (row.encode) row.values = values;
      rows.push_back(row);
    }
  }
  return rows;
}

floats unpacked(test_device& device, const packed_matrix& w) {
  floats out(static_cast<std::size_t>(w.rows * w.columns));
  for (std::int64_t r = 0; r < w.rows; ++r) device->unpack_row(w, r, out.data() + r * w.columns);
  return out;
}

}  // namespace

TEST_CASE("every file format decodes to the values that ggml reads") {
  int seen = 0;
  for (const golden_row& row : golden_rows()) {
    if (row.encode) continue;
    ++seen;
    INFO(row.format);
    const source_format format = source_names.at(row.format);
    REQUIRE(source_row_bytes(format, row.columns) == row.row.size());
    floats got(static_cast<std::size_t>(row.columns));
    cpu::decode_row(format, row.row.data(), row.columns, got.data());
    for (std::size_t i = 0; i < got.size(); ++i) {
      INFO("value " << i);
      CHECK(std::fabs(got[i] - row.values[i]) <= 2e-7F * std::fabs(row.values[i]) + 1e-9F);
    }
  }
  CHECK(seen == 10);
}

TEST_CASE("floats become blocks by ggml's own rounding, byte for byte") {
  int seen = 0;
  for (const golden_row& row : golden_rows()) {
    if (!row.encode) continue;
    ++seen;
    INFO(row.format);
    bytes got(row.row.size());
    cpu::encode_row(weight_names.at(row.format), row.values.data(), row.columns, got.data());
    CHECK(got == row.row);
  }
  CHECK(seen == 15);
}

TEST_CASE("a packed matrix gives back what its file holds, in the file's own precision") {
  for (const auto set : cpu::supported_instruction_sets()) {
    test_device device(set, 2);
    for (const golden_row& row : golden_rows()) {
      if (row.encode) continue;
      const source_format source = source_names.at(row.format);
      const packed_matrix w = device.room(native_format(source), 1, row.columns);
      device->pack(w, 0, {source, row.row.data(), 1, {}});
      const floats got = unpacked(device, w);
      // K-quants and five-bit ones change format: half a step of the new one, or a rounded scale.
      const bool kept = cpu::source_of(native_format(source)) == source;
      float largest = 0.0F;
      for (const float v : row.values) {
        if (row.format != "bf16" && row.format != "f16") largest = std::max(largest, std::fabs(v));
      }
      for (std::size_t i = 0; i < got.size(); ++i) {
        INFO(name_of(set) << " " << row.format << " value " << i);
        const float room = kept ? 2e-7F * std::fabs(row.values[i]) + 1e-9F : largest / 250.0F;
        CHECK(std::fabs(got[i] - row.values[i]) <= room);
      }
    }
  }
}

TEST_CASE("rows packed in pieces and in another order are the matrix packed at once") {
  randoms random(4);
  const floats rows = random.values(50 * 96);
  std::vector<std::int32_t> order(50);
  std::iota(order.rbegin(), order.rend(), 0);  // last row first
  floats turned;
  for (const std::int32_t r : order) {
    turned.insert(turned.end(), rows.begin() + r * 96, rows.begin() + (r + 1) * 96);
  }
  for (const weight_format format : all_formats) {
    INFO(name_of(format));
    test_device device(cpu::best_instruction_set(), 2);
    const packed_matrix whole = device.packed(format, 50, 96, rows);
    const packed_matrix pieces = device.room(format, 50, 96);
    // q, k and v of unequal heights, none a multiple of 16
    const floats q(rows.begin(), rows.begin() + 21 * 96);
    const floats k(rows.begin() + 21 * 96, rows.begin() + 26 * 96);
    const floats v(rows.begin() + 26 * 96, rows.end());
    device->pack(pieces, 0, test_device::source(q, 21));
    device->pack(pieces, 21, test_device::source(k, 5));
    device->pack(pieces, 26, test_device::source(v, 24));
    CHECK(std::memcmp(whole.data, pieces.data, device->packed_bytes(format, 50, 96)) == 0);

    const packed_matrix reordered = device.room(format, 50, 96);
    row_source source = test_device::source(turned, 50);
    source.order = order;
    device->pack(reordered, 0, source);
    CHECK(std::memcmp(whole.data, reordered.data, device->packed_bytes(format, 50, 96)) == 0);
  }
}

TEST_CASE("block formats refuse columns that are not whole blocks, floats take any") {
  test_device device(cpu::instruction_set::reference);
  for (const weight_format format : all_formats) {
    INFO(name_of(format));
    CHECK(device->can_pack(format, 64));
    CHECK(device->can_pack(format, 33) == !is_block(format));
    CHECK_FALSE(device->can_pack(format, 0));
  }
  CHECK(source_row_bytes(source_format::q4_k, 128) == 0);
  CHECK(source_row_bytes(source_format::q8_0, 33) == 0);
  CHECK(source_row_bytes(source_format::f32, 33) == 132);
}

TEST_CASE("sixteen-bit floats round to nearest even and come back") {
  for (std::uint32_t h = 0; h < 0x10000U; ++h) {
    const auto half = static_cast<std::uint16_t>(h);
    const float value = cpu::float_of_half(half);
    if (std::isnan(value)) continue;
    REQUIRE(cpu::half_of(value) == half);
  }
  CHECK(cpu::half_of(1.0F + 0x1p-11F) == cpu::half_of(1.0F));          // tie to even
  CHECK(cpu::half_of(1.0F + 3 * 0x1p-11F) == cpu::half_of(1.0F) + 2);  // tie to even, upwards
  CHECK(cpu::half_of(65519.0F) == 0x7BFF);
  CHECK(cpu::half_of(65520.0F) == 0x7C00);
  CHECK(cpu::bf16_of(1.0F + 0x1p-8F) == 0x3F80);
  CHECK(std::isnan(cpu::float_of_half(cpu::half_of(NAN))));
  CHECK(std::isnan(cpu::float_of_bf16(cpu::bf16_of(NAN))));
}

TEST_CASE("embed scales the rows it is asked for") {
  randoms random(6);
  const floats table = random.values(33 * 64);
  const std::vector<std::int32_t> ids{32, 0, 7, 7, 31, 16};
  for (const weight_format format : all_formats) {
    for (const auto set : cpu::supported_instruction_sets()) {
      test_device device(set, 2);
      const packed_matrix w = device.packed(format, 33, 64, table);
      const floats rows = unpacked(device, w);
      floats x(6 * 64);
      device->embed(w, ids, 8.0F, {x.data(), 6, 64});
      for (std::size_t t = 0; t < 6; ++t) {
        for (std::size_t i = 0; i < 64; ++i) {
          REQUIRE(x[t * 64 + i] == 8.0F * rows[static_cast<std::size_t>(ids[t]) * 64 + i]);
        }
      }
    }
  }
}

TEST_CASE("rows in float32 become another format as they are packed") {
  randoms random(7);
  for (const auto set : cpu::supported_instruction_sets()) {
    test_device device(set, 2);
    for (const weight_format format : all_formats) {
      for (const std::int64_t columns : {64, 577}) {
        if (is_block(format) && columns % 32 != 0) continue;
        INFO(name_of(format) << ", " << columns << " columns");
        const std::int64_t rows = 83;
        const floats values = random.values(rows * columns);
        const packed_matrix from = device.packed(weight_format::f32, rows, columns, values);
        const packed_matrix to = device.room(format, rows, columns);
        device->repack(from, 0, 48, to);
        device->repack(from, 48, rows - 48, to);
        CHECK(unpacked(device, to) ==
              unpacked(device, device.packed(format, rows, columns, values)));
      }
    }
  }
}
