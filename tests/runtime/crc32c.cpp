#include "runtime/crc32c.hpp"

#include <catch2/catch.hpp>

#include <string_view>
#include <vector>

namespace tandem {
namespace {

std::uint32_t of(std::string_view text) { return crc32c(std::as_bytes(std::span(text))); }

TEST_CASE("CRC-32C gives the values of RFC 3720") {
  CHECK(of("") == 0);
  CHECK(of("123456789") == 0xe3069283);
  CHECK(of(std::string_view("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                            32)) == 0x8a9136aa);
}

TEST_CASE("CRC-32C is the same by instruction and by table, at once and in parts") {
  std::vector<std::byte> bytes;
  for (unsigned i = 0; i < 1000; ++i) bytes.push_back(static_cast<std::byte>(i * i >> 3));
  for (const std::size_t size : {0, 1, 7, 8, 9, 31, 33, 1000}) {
    const auto all = std::span(bytes).first(size);
    CHECK(crc32c(all) == crc32c_by_table(all));
    const std::size_t cut = size / 3;
    CHECK(crc32c(all.subspan(cut), crc32c(all.first(cut))) == crc32c(all));
  }
}

}  // namespace
}  // namespace tandem
