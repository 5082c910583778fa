#include "runtime/formats/safetensors.hpp"

#include "tests/support/temporary_folder.hpp"

#include <cstring>
#include <random>
#include <string>

using namespace tandem;
using namespace tandem::test;
using Catch::Matchers::Contains;
using formats::open_safetensors_folder;
using formats::safetensors_file;

namespace {

// A file with this header and so many bytes of tensors: 0, 1, 2, ...
std::string file_of(const std::string& header, std::size_t data_bytes) {
  std::string file(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(file.data(), &length, sizeof length);
  file += header;
  for (std::size_t i = 0; i < data_bytes; ++i) file += static_cast<char>(i);
  return file;
}

std::string one_tensor(const std::string& fields, std::size_t data_bytes = 24) {
  return file_of(R"({"w":{)" + fields + "}}", data_bytes);
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string refusal(const std::string& text) {
  const auto file = safetensors_file::parse(bytes_of(text));
  REQUIRE_FALSE(file);
  return file.error().detail;
}

std::string folder_refusal(const temporary_folder& folder) {
  const auto files = open_safetensors_folder(folder.path());
  REQUIRE_FALSE(files);
  return files.error().detail;
}

const std::string good_header = R"({"__metadata__":{"format":"pt"},)"
                                R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                                R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},)"
                                R"("c":{"dtype":"F16","shape":[],"data_offsets":[32,34]}})";

}  // namespace

TEST_CASE("a safetensors file gives its tensors with shape, format and place") {
  const auto text = file_of(good_header, 34);
  const auto file = safetensors_file::parse(bytes_of(text));
  REQUIRE(file);
  REQUIRE(file->tensors().size() == 3);
  const auto& [a, b, c] = std::tie(file->tensors()[0], file->tensors()[1], file->tensors()[2]);
  CHECK(a.name == "a");
  CHECK(a.shape == std::vector<std::int64_t>{2, 3});
  CHECK(a.format == kernels::source_format::f32);
  CHECK(a.bytes.size() == 24);
  CHECK(b.format == kernels::source_format::bf16);
  CHECK(b.bytes[0] == std::byte{24});
  CHECK(c.shape.empty());
  CHECK(c.format == kernels::source_format::f16);
}

TEST_CASE("a broken safetensors header is refused with what is wrong") {
  CHECK_THAT(refusal(""), Contains("after 0 bytes"));
  CHECK_THAT(refusal(std::string(8, '\xff')), Contains("18446744073709551615 bytes"));
  CHECK_THAT(refusal(file_of("{", 0)), Contains("no JSON object"));
  CHECK_THAT(refusal(file_of("[1]", 0)), Contains("no JSON object"));
  CHECK_THAT(refusal(file_of(std::string(5000, '['), 0)), Contains("no JSON object"));
  CHECK_THAT(refusal(file_of(R"({"w":7})", 0)), Contains("'w'"));
  CHECK_THAT(refusal(file_of(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                             R"("w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                             4)),
             Contains("'w' stands there twice"));
}

TEST_CASE("a tensor whose numbers do not agree is refused by name") {
  const auto refuses = [](const std::string& fields, const std::string& why) {
    INFO(fields);
    CHECK_THAT(refusal(one_tensor(fields)), Contains("'w'") && Contains(why));
  };
  refuses(R"("dtype":"I64","shape":[3],"data_offsets":[0,24])", "I64");
  refuses(R"("dtype":"F8_E5M2","shape":[24],"data_offsets":[0,24])", "F8_E5M2");
  refuses(R"("dtype":"F8_E4M3","shape":[12],"data_offsets":[0,24])", "12 bytes by its shape");
  refuses(R"("shape":[6],"data_offsets":[0,24])", "dtype");
  refuses(R"("dtype":"F32","data_offsets":[0,24])", "shape");
  refuses(R"("dtype":"F32","shape":[6])", "data_offsets");
  refuses(R"("dtype":"F32","shape":[6],"data_offsets":[0])", "data_offsets");
  refuses(R"("dtype":"F32","shape":[6],"data_offsets":[-1,24])", "data_offsets");
  refuses(R"("dtype":"F32","shape":[6],"data_offsets":[0,25])", "holds 24 bytes");
  refuses(R"("dtype":"F32","shape":[6],"data_offsets":[24,0])", "holds 24 bytes");
  refuses(R"("dtype":"F32","shape":[5],"data_offsets":[0,24])", "wants 20 bytes");
  refuses(R"("dtype":"F32","shape":[-6],"data_offsets":[0,24])", "no count");
  refuses(R"("dtype":"F32","shape":[6.5],"data_offsets":[0,24])", "no count");
  refuses(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,24])",
          "larger than any file");
  refuses(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,6],"data_offsets":[0,24])", "9 dimensions");
}

TEST_CASE("a safetensors file cut anywhere is refused") {
  const auto whole = file_of(good_header, 34);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const std::vector<std::byte> cut(bytes_of(whole).begin(),
                                     bytes_of(whole).begin() + static_cast<std::ptrdiff_t>(size));
    INFO("cut to " << size << " of " << whole.size() << " bytes");
    CHECK_FALSE(safetensors_file::parse(cut));
  }
}

TEST_CASE("a safetensors file with any byte changed never reads beyond itself") {
  const auto whole = file_of(good_header, 34);
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 5000; ++i) {
    std::string changed = whole;
    changed[random() % changed.size()] = static_cast<char>(random());
    const auto file = safetensors_file::parse(bytes_of(changed));
    if (!file) continue;
    const auto bytes = bytes_of(changed);
    for (const auto& tensor : file->tensors()) {
      REQUIRE(tensor.bytes.data() >= bytes.data());
      REQUIRE(tensor.bytes.data() + tensor.bytes.size() <= bytes.data() + bytes.size());
    }
  }
}

TEST_CASE("a folder of shards is read as its index says") {
  const temporary_folder folder;
  const std::string a = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
  folder.write("model-1.safetensors", file_of(R"({"a":{)" + a + "}}", 4));
  folder.write("model-2.safetensors", file_of(R"({"b":{)" + a + "}}", 4));
  const auto index = [&](const std::string& map) {
    folder.write("model.safetensors.index.json", R"({"weight_map":{)" + map + "}}");
  };

  SECTION("every tensor is there") {
    index(R"("a":"model-1.safetensors","b":"model-2.safetensors")");
    const auto files = open_safetensors_folder(folder.path());
    REQUIRE(files);
    REQUIRE(files->size() == 2);
    CHECK((*files)[1].tensors()[0].name == "b");
  }
  SECTION("a shard is missing") {
    index(R"("a":"model-1.safetensors","b":"model-3.safetensors")");
    CHECK_THAT(folder_refusal(folder), Contains("model-3.safetensors"));
  }
  SECTION("a tensor is missing") {
    index(R"("a":"model-1.safetensors","b":"model-2.safetensors","c":"model-2.safetensors")");
    CHECK_THAT(folder_refusal(folder), Contains("'c' is not in model-2.safetensors"));
  }
  SECTION("a tensor lies in another shard") {
    index(R"("a":"model-2.safetensors","b":"model-2.safetensors")");
    CHECK_THAT(folder_refusal(folder), Contains("'b'") || Contains("'a'"));
  }
  SECTION("a shard has a tensor nobody knows of") {
    index(R"("a":"model-1.safetensors")");
    folder.write("model-1.safetensors", file_of(R"({"a":{)" + a + R"(},"x":{)" + a + "}}", 4));
    CHECK_THAT(folder_refusal(folder), Contains("'x'") && Contains("the index says nothing"));
  }
  SECTION("the index points out of the folder") {
    for (const auto* path : {"../model-1.safetensors", "/etc/passwd", "a/b", "..", ""}) {
      index(R"("a":")" + std::string(path) + "\"");
      CHECK_THAT(folder_refusal(folder), Contains("is no file name"));
    }
  }
  SECTION("the index is broken") {
    for (const auto* text : {"", "{", "[]", R"({"weight_map":3})", R"({"weight_map":{}})",
                             R"({"weight_map":{"a":1}})"}) {
      folder.write("model.safetensors.index.json", text);
      CHECK_THAT(folder_refusal(folder), Contains("model.safetensors.index.json"));
    }
  }
}

TEST_CASE("a folder without weights says which file is missing") {
  const temporary_folder folder;
  CHECK_THAT(folder_refusal(folder), Contains("model.safetensors"));
}
