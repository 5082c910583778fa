#include "runtime/formats/gguf.hpp"

#include "tests/support/gguf_writer.hpp"
#include "tests/support/temporary_folder.hpp"

#include <cmath>
#include <limits>
#include <random>

using namespace tandem;
using namespace tandem::test;
using Catch::Matchers::Contains;
using formats::gguf_file;

namespace {

gguf_writer example() {
  gguf_writer out;
  out.string("general.architecture", "llama");
  out.integer("answer", 42);
  out.number("pi", 3.25F);
  out.boolean("yes", true);
  out.strings("words", {"a", "", "Ġthe"});
  out.numbers("scores", {0.5F, -1.0F});
  out.integers("types", {1, -2, 3});
  out.tensor("first", {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6});
  const std::vector<std::byte> blocks(2 * 3 * 20);  // Q4_1: 20 bytes each 32 values
  out.tensor("second", {2, 96}, 3, blocks);
  return out;
}

template <class T>
std::vector<std::byte> bytes_of(T value) {
  std::vector<std::byte> bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

std::string refusal(std::span<const std::byte> bytes) {
  const auto file = gguf_file::parse(bytes);
  REQUIRE_FALSE(file);
  return file.error().detail;
}
std::string refusal(const gguf_writer& out) { return refusal(out.bytes()); }

template <class T>
void overwrite(std::vector<std::byte>& file, std::size_t at, T value) {
  std::memcpy(file.data() + at, &value, sizeof value);
}

}  // namespace

TEST_CASE("a GGUF file gives back what was written, in both known versions") {
  for (const std::uint32_t version : {2U, 3U}) {
    auto bytes = example().bytes();
    overwrite(bytes, 4, version);
    const auto file = gguf_file::parse(bytes);
    REQUIRE(file);
    CHECK(file->string("general.architecture") == "llama");
    CHECK(file->integer("answer") == 42);
    CHECK(file->number("pi") == 3.25);
    CHECK(file->boolean("yes") == true);
    CHECK(file->strings("words") == std::vector<std::string_view>{"a", "", "Ġthe"});
    CHECK(file->numbers("scores") == std::vector<double>{0.5, -1.0});
    CHECK(file->integers("types") == std::vector<std::int64_t>{1, -2, 3});
    REQUIRE(file->tensors().size() == 2);
    const auto* first = file->tensor("first");
    REQUIRE(first != nullptr);
    CHECK(first->shape == std::vector<std::int64_t>{2, 3});
    CHECK(first->format == kernels::source_format::f32);
    CHECK(first->bytes.size() == 24);
    float last = 0;
    std::memcpy(&last, first->bytes.data() + 20, sizeof last);
    CHECK(last == 6.0F);
    CHECK(file->tensor("second")->bytes.size() == 120);
    CHECK(file->tensor("third") == nullptr);
  }
}

TEST_CASE("metadata of another type, or missing, reads as nothing") {
  const auto bytes = example().bytes();
  const auto file = gguf_file::parse(bytes);
  REQUIRE(file);
  CHECK_FALSE(file->integer("pi"));
  CHECK_FALSE(file->number("answer"));
  CHECK_FALSE(file->string("words"));
  CHECK_FALSE(file->strings("scores"));
  CHECK_FALSE(file->integers("words"));
  CHECK_FALSE(file->numbers("types"));
  CHECK_FALSE(file->boolean("answer"));
  CHECK_FALSE(file->integer("words"));
  CHECK_FALSE(file->string("no such key"));
  CHECK(file->has("words"));
  CHECK_FALSE(file->has("word"));
}

TEST_CASE("integers of every width and sign read as one kind, floats as another") {
  gguf_writer out;
  out.raw("u8", 0, bytes_of(std::uint8_t{255}));
  out.raw("i8", 1, bytes_of(std::int8_t{-1}));
  out.raw("u16", 2, bytes_of(std::uint16_t{65535}));
  out.raw("i16", 3, bytes_of(std::int16_t{-2}));
  out.raw("i32", 5, bytes_of(std::int32_t{-3}));
  out.raw("u64", 10, bytes_of(std::uint64_t{1} << 40));
  out.raw("i64", 11, bytes_of(std::int64_t{-4}));
  out.raw("f64", 12, bytes_of(0.125));
  out.raw("too large", 10, bytes_of(std::numeric_limits<std::uint64_t>::max()));
  const auto bytes = out.bytes();
  const auto file = gguf_file::parse(bytes);
  REQUIRE(file);
  CHECK(file->integer("u8") == 255);
  CHECK(file->integer("i8") == -1);
  CHECK(file->integer("u16") == 65535);
  CHECK(file->integer("i16") == -2);
  CHECK(file->integer("i32") == -3);
  CHECK(file->integer("u64") == std::int64_t{1} << 40);
  CHECK(file->integer("i64") == -4);
  CHECK(file->number("f64") == 0.125);
  CHECK_FALSE(file->integer("too large"));
}

TEST_CASE("a file may hold a vocabulary and no tensors") {
  gguf_writer out;
  out.strings("tokenizer.ggml.tokens", std::vector<std::string>(300'000, "token"));
  const auto bytes = out.bytes();
  const auto file = gguf_file::parse(bytes);
  REQUIRE(file);
  CHECK(file->tensors().empty());
  CHECK(file->strings("tokenizer.ggml.tokens")->size() == 300'000);
}

TEST_CASE("tensors lie where the file's own alignment says") {
  gguf_writer out;
  out.align(4096);
  out.tensor("a", {1}, std::vector<float>{1});
  out.tensor("b", {1}, std::vector<float>{2});
  const auto bytes = out.bytes();
  const auto file = gguf_file::parse(bytes);
  REQUIRE(file);
  CHECK(file->tensor("a")->bytes.data() == bytes.data() + 4096);
  CHECK(file->tensor("b")->bytes.data() == bytes.data() + 8192);
}

TEST_CASE("what is no GGUF file of a known kind is refused by name") {
  auto bytes = example().bytes();
  SECTION("another format") {
    bytes[0] = std::byte{'X'};
    CHECK_THAT(refusal(bytes), Contains("does not begin with 'GGUF'"));
  }
  SECTION("a future version") {
    overwrite(bytes, 4, std::uint32_t{4});
    CHECK_THAT(refusal(bytes), Contains("version 4"));
  }
  SECTION("the first version") {
    overwrite(bytes, 4, std::uint32_t{1});
    CHECK_THAT(refusal(bytes), Contains("version 1"));
  }
  SECTION("a big-endian file") {
    overwrite(bytes, 4, std::uint32_t{0x03000000});
    CHECK_THAT(refusal(bytes), Contains("big-endian"));
  }
  SECTION("an empty file") { CHECK_THAT(refusal(std::span<const std::byte>{}), Contains("GGUF")); }
}

TEST_CASE("hostile counts are refused before anything is sized by them") {
  auto bytes = example().bytes();
  SECTION("tensors") {
    overwrite(bytes, 8, std::uint64_t{1} << 60);
    CHECK_THAT(refusal(bytes), Contains("1152921504606846976 tensors"));
  }
  SECTION("metadata entries") {
    overwrite(bytes, 16, ~std::uint64_t{0});
    CHECK_THAT(refusal(bytes), Contains("18446744073709551615 metadata entries"));
  }
  SECTION("elements of an array, whose bytes overflow") {
    gguf_writer out;
    std::vector<std::byte> array = bytes_of(std::uint32_t{10});
    const auto count = bytes_of(std::uint64_t{1} << 61);
    array.insert(array.end(), count.begin(), count.end());
    out.raw("list", 9, array);
    CHECK_THAT(refusal(out), Contains("'list'") && Contains("2305843009213693952 elements"));
  }
  SECTION("the bytes of a text") {
    gguf_writer out;
    out.raw("text", 8, bytes_of(~std::uint64_t{0} - 3));
    CHECK_THAT(refusal(out), Contains("'text'") && Contains("past the end"));
  }
  SECTION("a shape whose bytes overflow") {
    gguf_writer out;
    out.tensor("huge", {std::int64_t{1} << 40, std::int64_t{1} << 40}, 0, {});
    CHECK_THAT(refusal(out), Contains("'huge'"));
  }
  SECTION("a row longer than any") {
    gguf_writer out;
    out.tensor("wide", {std::numeric_limits<std::int64_t>::max()}, 0, {});
    CHECK_THAT(refusal(out), Contains("'wide'"));
  }
}

TEST_CASE("broken metadata is refused with its key") {
  gguf_writer out;
  SECTION("an unknown type") {
    out.raw("odd", 13, bytes_of(std::uint64_t{0}));
    CHECK_THAT(refusal(out), Contains("'odd'") && Contains("type 13"));
  }
  SECTION("an array of arrays") {
    std::vector<std::byte> array = bytes_of(std::uint32_t{9});
    array.resize(12);
    out.raw("nested", 9, array);
    CHECK_THAT(refusal(out), Contains("'nested'") && Contains("array of arrays"));
  }
  SECTION("a flag that is neither true nor false") {
    out.raw("flag", 7, bytes_of(std::uint8_t{2}));
    CHECK_THAT(refusal(out), Contains("'flag'"));
  }
  SECTION("a key written twice") {
    out.integer("twice", 1);
    out.integer("twice", 2);
    CHECK_THAT(refusal(out), Contains("'twice'"));
  }
  SECTION("an alignment that is no power of two") {
    out.align(48);
    CHECK_THAT(refusal(out), Contains("general.alignment is 48"));
  }
  SECTION("an alignment of another type") {
    out.string("general.alignment", "32");
    CHECK_THAT(refusal(out), Contains("general.alignment"));
  }
}

TEST_CASE("tensors that cannot be read are refused by name") {
  gguf_writer out;
  SECTION("a type that is not built") {
    out.tensor("small", {1, 256}, 10, {});
    CHECK_THAT(refusal(out), Contains("'small'") && Contains("Q2_K"));
  }
  SECTION("a type nobody knows") {
    out.tensor("odd", {1, 256}, 77, {});
    CHECK_THAT(refusal(out), Contains("'odd'") && Contains("ggml type 77"));
  }
  SECTION("half a block") {
    out.tensor("half", {1, 48}, 3, {});
    CHECK_THAT(refusal(out), Contains("'half'") && Contains("48 columns"));
  }
  SECTION("no dimension, or five") {
    const std::size_t count = GENERATE(0U, 5U);
    out.tensor("flat", std::vector<std::int64_t>(count, 1), 0, {});
    CHECK_THAT(refusal(out), Contains("'flat'") && Contains("dimensions"));
  }
  SECTION("a size of zero or less") {
    const std::int64_t size = GENERATE(0, -1);
    out.tensor("none", {2, size}, 0, {});
    CHECK_THAT(refusal(out), Contains("'none'"));
  }
  SECTION("a name written twice") {
    out.tensor("twin", {1}, std::vector<float>{1});
    out.tensor("twin", {1}, std::vector<float>{2});
    CHECK_THAT(refusal(out), Contains("'twin'"));
  }
  SECTION("bytes beyond the end") {
    out.tensor("short", {8}, 0, std::vector<std::byte>(31));
    CHECK_THAT(refusal(out), Contains("'short' wants 32 bytes"));
  }
}

TEST_CASE("a file cut anywhere is refused, and says where") {
  const auto whole = example().bytes();
  REQUIRE(gguf_file::parse(whole));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    // A copy of exactly these bytes: a read past them is seen by the sanitizers.
    const std::vector<std::byte> cut(whole.begin(),
                                     whole.begin() + static_cast<std::ptrdiff_t>(size));
    const auto file = gguf_file::parse(cut);
    INFO("cut to " << size << " of " << whole.size() << " bytes");
    REQUIRE_FALSE(file);
    CHECK_FALSE(file.error().detail.empty());
  }
}

TEST_CASE("a file with any byte changed is read or refused, and never reads beyond itself") {
  const auto whole = example().bytes();
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    auto changed = whole;
    changed[at] ^= static_cast<std::byte>(1 + random() % 255);
    const auto file = gguf_file::parse(changed);
    if (!file) continue;
    for (const auto& tensor : file->tensors()) {
      CHECK(tensor.bytes.data() >= changed.data());
      CHECK(tensor.bytes.data() + tensor.bytes.size() <= changed.data() + changed.size());
    }
    for (const auto* key : {"words", "scores", "types"}) {
      (void)file->strings(key);
      (void)file->numbers(key);
      (void)file->integers(key);
    }
  }
}

TEST_CASE("a GGUF file on disk is mapped, and a missing one is not found") {
  const temporary_folder folder;
  example().write(folder.path() / "model.gguf");
  auto file = gguf_file::open(folder.path() / "model.gguf");
  REQUIRE(file);
  const gguf_file moved = std::move(*file);
  CHECK(moved.tensor("first")->bytes.size() == 24);
  CHECK(moved.file_bytes() == std::filesystem::file_size(folder.path() / "model.gguf"));

  const auto missing = gguf_file::open(folder.path() / "other.gguf");
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code == errc::not_found);
  CHECK_THAT(missing.error().detail, Contains("other.gguf"));

  const auto directory = gguf_file::open(folder.path());
  REQUIRE_FALSE(directory);
  CHECK_THAT(directory.error().detail, Contains("not a regular file"));

  const auto empty = gguf_file::open(folder.write("empty.gguf", ""));
  REQUIRE_FALSE(empty);
  CHECK_THAT(empty.error().detail, Contains("empty.gguf"));
}
