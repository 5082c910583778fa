#include "kernels/cpu/half.hpp"
#include "tests/cuda/pair.hpp"

#include <numeric>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

TEST_CASE("a GPU gives back the rows that the CPU packs, in every format and odd size", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  for (const weight_format format : all_formats) {
    for (const std::int64_t rows : {1, 16, 33, 50}) {
      for (const std::int64_t columns : {32, 96, 160, 576, 1, 31, 33}) {
        if (is_block(format) && columns % 32 != 0) continue;
        INFO(name_of(format) << " " << rows << " x " << columns);
        randoms random(1);
        const floats values = random.values(rows * columns);
        test_device cpu(cpu::instruction_set::reference);
        const floats truth = cpu.unpacked(cpu.packed(format, rows, columns, values));
        CHECK(worst_difference(gpu->unpacked(gpu->packed(format, rows, columns, values)), truth) <=
              1e-7);
      }
    }
  }
}

TEST_CASE("rows packed on a GPU in pieces and in another order are the matrix packed at once",
          "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  randoms random(4);
  const floats rows = random.values(50 * 96);
  std::vector<std::int32_t> order(50);
  std::iota(order.rbegin(), order.rend(), 0);  // last row first
  floats turned;
  for (const std::int32_t r : order)
    turned.insert(turned.end(), rows.begin() + r * 96, rows.begin() + (r + 1) * 96);
  for (const weight_format format : all_formats) {
    INFO(name_of(format));
    const auto bytes = static_cast<std::int64_t>((*gpu)->packed_bytes(format, 50, 96));
    const packed_matrix whole = gpu->packed(format, 50, 96, rows);
    const packed_matrix pieces = gpu->matrix_room(format, 50, 96);
    const floats q(rows.begin(), rows.begin() + 21 * 96);
    const floats k(rows.begin() + 21 * 96, rows.begin() + 26 * 96);
    const floats v(rows.begin() + 26 * 96, rows.end());
    (*gpu)->pack(pieces, 0, test_device::source(q, 21));
    (*gpu)->pack(pieces, 21, test_device::source(k, 5));
    (*gpu)->pack(pieces, 26, test_device::source(v, 24));
    CHECK(gpu->get(whole.data, bytes) == gpu->get(pieces.data, bytes));

    const packed_matrix reordered = gpu->matrix_room(format, 50, 96);
    row_source source = test_device::source(turned, 50);
    source.order = order;
    (*gpu)->pack(reordered, 0, source);
    CHECK(gpu->get(whole.data, bytes) == gpu->get(reordered.data, bytes));
  }
}

TEST_CASE("a gated matrix on a GPU has gate and up, and its padding is zero", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  const std::int64_t F = 33, D = 64;
  randoms random(5);
  const floats gate = random.values(F * D), up = random.values(F * D);
  for (const weight_format format : all_formats) {
    INFO(name_of(format));
    const packed_matrix w = gpu->packed_gated(format, F, D, gate, up);
    const floats gates = gpu->unpacked(gpu->packed(format, F, D, gate));
    const floats ups = gpu->unpacked(gpu->packed(format, F, D, up));
    const packed_matrix alias = (*gpu)->gated_as_linear(w);
    REQUIRE(alias.rows == 96);
    floats row(static_cast<std::size_t>(D));
    for (std::int64_t r = 0; r < 48; ++r) {
      for (const bool is_up : {false, true}) {
        INFO("row " << r << " of " << (is_up ? "up" : "gate"));
        const floats& half = is_up ? ups : gates;
        const floats expected =
            r < F ? floats(half.begin() + r * D, half.begin() + (r + 1) * D) : floats(row.size());
        (*gpu)->unpack_row(alias, (2 * (r / 16) + (is_up ? 1 : 0)) * 16 + r % 16, row.data());
        CHECK(worst_difference(row, expected) == 0.0);
        if (r >= F) continue;
        (*gpu)->unpack_gated_row(w, is_up, r, row.data());
        CHECK(row == expected);
      }
    }
  }
}

TEST_CASE("float32 lies on a GPU as it does on the CPU, gated too", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  test_device cpu(cpu::instruction_set::reference);
  randoms random(6);
  for (const std::int64_t rows : {1, 16, 33, 64}) {
    for (const std::int64_t columns : {1, 7, 33, 64}) {
      INFO(rows << " x " << columns);
      const floats gate = random.values(rows * columns), up = random.values(rows * columns);
      const auto bytes_of = [&](auto& device, const packed_matrix& w) {
        std::vector<std::byte> bytes(device->packed_bytes(w.format, w.rows, w.columns));
        device->read({w.data, bytes.size()}, bytes.data());
        return bytes;
      };
      CHECK(bytes_of(*gpu, gpu->packed(weight_format::f32, rows, columns, gate)) ==
            bytes_of(cpu, cpu.packed(weight_format::f32, rows, columns, gate)));
      CHECK(bytes_of(*gpu, gpu->packed_gated(weight_format::f32, rows, columns, gate, up)) ==
            bytes_of(cpu, cpu.packed_gated(weight_format::f32, rows, columns, gate, up)));
    }
  }
}

TEST_CASE("rows in float32 become another format on a GPU as they are packed", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  randoms random(7);
  for (const weight_format format : all_formats) {
    for (const std::int64_t columns : {64, 577}) {
      if (is_block(format) && columns % 32 != 0) continue;
      INFO(name_of(format) << ", " << columns << " columns");
      const std::int64_t rows = 83;
      const floats values = random.values(rows * columns);
      const packed_matrix from = gpu->packed(weight_format::f32, rows, columns, values);
      const packed_matrix to = gpu->matrix_room(format, rows, columns);
      (*gpu)->fill_zero({to.data, (*gpu)->packed_bytes(format, rows, columns)});
      (*gpu)->repack(from, 0, 48, to);
      (*gpu)->repack(from, 48, rows - 48, to);
      CHECK(gpu->unpacked(to) == gpu->unpacked(gpu->packed(format, rows, columns, values)));
    }
  }
}

TEST_CASE("a matrix larger than the staging memory arrives whole", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  const std::int64_t rows = 21'000, columns = 1'024;  // 43 MB
  randoms random(8);
  std::vector<std::uint16_t> values(static_cast<std::size_t>(rows * columns));
  std::uint32_t state = 1;
  for (auto& v : values) {
    v = static_cast<std::uint16_t>((state = state * 1'664'525U + 1U) >> 17);
    if ((v & 0x7F80U) == 0x7F80U) v &= 0xBFFFU;  // a number, so that it is equal to itself
  }
  const packed_matrix w = gpu->matrix_room(weight_format::bf16, rows, columns);
  (*gpu)->pack(w, 0, {source_format::bf16, reinterpret_cast<std::byte*>(values.data()), rows, {}});
  floats row(static_cast<std::size_t>(columns));
  for (std::int64_t i = 0; i < 200; ++i) {
    const std::int64_t r = i == 0 ? rows - 1 : random.below(static_cast<int>(rows));
    (*gpu)->unpack_row(w, r, row.data());
    for (std::int64_t k = 0; k < columns; ++k) {
      const float expected = cpu::float_of_bf16(values[static_cast<std::size_t>(r * columns + k)]);
      REQUIRE(row[static_cast<std::size_t>(k)] == expected);
    }
  }
}

TEST_CASE("embed on a GPU scales the rows it is asked for", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  const std::vector<std::int32_t> ids{32, 0, 7, 7, 31, 16};
  for (const weight_format format : all_formats) {
    for (const std::int64_t columns : {64, 577}) {
      if (is_block(format) && columns % 32 != 0) continue;
      INFO(name_of(format) << " " << columns);
      randoms random(6);
      const packed_matrix w = gpu->packed(format, 33, columns, random.values(33 * columns));
      const floats rows = gpu->unpacked(w);
      const rows_out x = gpu->room_for(6, columns);
      (*gpu)->embed(w, ids, 8.0F, x);
      floats expected;
      for (const std::int32_t id : ids) {
        for (std::int64_t k = 0; k < columns; ++k)
          expected.push_back(8.0F * rows[static_cast<std::size_t>(id * columns + k)]);
      }
      CHECK(gpu->get(x) == expected);
    }
  }
}

TEST_CASE("a table's gradient on a GPU adds rows of one id in their order", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  for (const std::int64_t D : {33, 64, 600}) {
    INFO("D=" << D);
    randoms random(7);
    std::vector<std::int32_t> ids;
    for (int t = 0; t < 75; ++t) ids.push_back(random.below(19));
    const floats dx = random.values(75 * D), before = random.values(20 * D);
    test_device cpu(cpu::instruction_set::reference, 1, training_limits());
    const packed_matrix truth = cpu.packed(weight_format::f32, 20, D, before);
    cpu->embed_backward({dx.data(), 75, D}, ids, 0.3F, truth);
    const packed_matrix table = gpu->packed(weight_format::f32, 20, D, before);
    (*gpu)->embed_backward(gpu->rows(dx, 75, D), ids, 0.3F, table);
    CHECK(worst_difference(gpu->unpacked(table), cpu.unpacked(truth)) <= 1e-6);
  }
}
