#include "gateway/openai/multipart_parser.hpp"

#include <catch2/catch.hpp>

#include <random>
#include <vector>

using namespace tandem;
using namespace tandem::gateway::openai;
using Catch::Contains;

namespace {

struct collected {
  multipart_part head;
  std::string data;
  bool ended = false;
};

class collector final : public multipart_listener {
 public:
  std::vector<collected> parts;
  result<void> on_part(const multipart_part& part) override {
    parts.push_back({part, {}, false});
    return {};
  }
  result<void> on_data(std::string_view bytes) override {
    CHECK_FALSE(bytes.empty());
    parts.back().data += bytes;
    return {};
  }
  result<void> on_part_end() override {
    CHECK_FALSE(parts.back().ended);
    parts.back().ended = true;
    return {};
  }
};

// The parts of a body that is fed in pieces of so many bytes; its refusal instead.
struct outcome {
  std::vector<collected> parts;
  std::string refusal;
};

outcome parsed(const std::string& body, std::size_t piece = std::string::npos,
               std::string_view boundary = "b") {
  collector into;
  multipart_parser parser(boundary, into);
  for (std::size_t at = 0; at < body.size(); at += std::min(piece, body.size() - at)) {
    const auto fed = parser.feed(std::string_view(body).substr(at, piece));
    if (!fed) return {into.parts, fed.error().detail};
  }
  const auto finished = parser.finish();
  return {into.parts, finished ? "" : finished.error().detail};
}

std::string part(const std::string& name, const std::string& data, const std::string& more = {}) {
  return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"" + more + "\r\n\r\n" + data +
         "\r\n";
}

multipart_part headers(const std::string& disposition) {
  const auto read = read_part_headers("Content-Disposition: " + disposition + "\r\n");
  INFO(disposition);
  if (!read) FAIL(read.error().detail);
  return *read;
}

}  // namespace

TEST_CASE("a form's parts come out as they went in, wherever its bytes are cut") {
  const std::string body = "a preamble\r\n--bogus\r\n" + part("purpose", "fine-tune") +
                           part("file", "{\"a\": 1}\r\n--bb\r\n\r\n--\r\n-b", "; filename=\"d\"") +
                           part("empty", "") + "--b--\r\nan epilogue --b\r\n";
  for (std::size_t piece = 1; piece < body.size(); ++piece) {
    INFO("pieces of " << piece);
    const auto form = parsed(body, piece);
    REQUIRE(form.refusal.empty());
    REQUIRE(form.parts.size() == 3);
    CHECK(form.parts[0].head.name == "purpose");
    CHECK_FALSE(form.parts[0].head.filename);
    CHECK(form.parts[0].data == "fine-tune");
    CHECK(form.parts[1].head.filename == "d");
    CHECK(form.parts[1].data == "{\"a\": 1}\r\n--bb\r\n\r\n--\r\n-b");
    CHECK(form.parts[2].data.empty());
    for (const auto& one : form.parts) CHECK(one.ended);
  }
}

TEST_CASE("bytes of a file are never mistaken for a boundary, nor kept back") {
  std::mt19937 random(4711);
  INFO("seed 4711");
  // Only bytes that boundaries are made of.
  const std::string alphabet = "\r\n-b ";
  for (int round = 0; round < 300; ++round) {
    std::string data;
    for (int i = 0; i < 60; ++i) data += alphabet[random() % alphabet.size()];
    // A real boundary line within the data would be one.
    if (("\r\n" + data + "\r\n--b").find("\r\n--b") < data.size() + 2) continue;
    const auto form = parsed(part("file", data) + "--b--", 1 + random() % 9);
    INFO(round);
    REQUIRE(form.refusal.empty());
    REQUIRE(form.parts.size() == 1);
    CHECK(form.parts[0].data == data);
  }
}

TEST_CASE("a boundary may be followed by blanks, a longer word is none") {
  const auto form = parsed("--b \t\r\n" + part("a", "1").substr(5) + "--b  \r\n" +
                           part("c", "x\r\n--bc\r\ny").substr(5) + "--b--");
  REQUIRE(form.refusal.empty());
  REQUIRE(form.parts.size() == 2);
  CHECK(form.parts[0].data == "1");
  CHECK(form.parts[1].data == "x\r\n--bc\r\ny");
}

TEST_CASE("a form whose lines end in LF alone is read, its data kept to the byte") {
  const std::string body =
      "--b\ncontent-disposition: form-data; name=a\n\n1\r\n2\n--b\n"
      "content-disposition: form-data; name=c\n\n\n--b--\n";
  for (std::size_t piece = 1; piece < body.size(); ++piece) {
    const auto form = parsed(body, piece);
    REQUIRE(form.refusal.empty());
    REQUIRE(form.parts.size() == 2);
    CHECK(form.parts[0].data == "1\r\n2");
    CHECK(form.parts[1].data.empty());
  }
}

TEST_CASE("a part whose boundary follows its empty line at once is empty") {
  const auto form = parsed("--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n--b--\r\n", 3);
  REQUIRE(form.refusal.empty());
  REQUIRE(form.parts.size() == 1);
  CHECK(form.parts[0].data.empty());
  CHECK(form.parts[0].ended);
}

TEST_CASE("a form without parts is one") {
  const auto form = parsed("--b--");
  CHECK(form.refusal.empty());
  CHECK(form.parts.empty());
}

TEST_CASE("a form that is cut off anywhere is refused") {
  const std::string body = part("file", "data", "; filename=x") + "--b--";
  for (std::size_t size = 0; size < body.size(); ++size) {
    INFO(size << " of " << body.size());
    CHECK_FALSE(parsed(body.substr(0, size)).refusal.empty());
  }
  CHECK_THAT(parsed(part("file", "data")).refusal, Contains("before its last boundary"));
  CHECK_THAT(parsed("no form at all").refusal, Contains("is not in it"));
}

TEST_CASE("what no form needs is refused by its bound") {
  CHECK_THAT(parsed(std::string(20'000, 'x')).refusal, Contains("first 16384 bytes"));
  CHECK_THAT(parsed("--b\r\nx: " + std::string(20'000, 'x'), 100).refusal,
             Contains("larger than 16384 bytes"));
  std::string many;
  for (int i = 0; i < 65; ++i) many += part("a", "1");
  CHECK_THAT(parsed(many + "--b--").refusal, Contains("more than 64 parts"));
  std::string lines = "--b\r\n";
  for (int i = 0; i < 40; ++i) lines += "x: y\r\n";
  CHECK_THAT(parsed(lines + "\r\n").refusal, Contains("more than 32 header lines"));
}

TEST_CASE("malformed headers of a part are refused with what is wrong") {
  const auto refusal = [](const std::string& block) {
    const auto read = read_part_headers(block);
    return read ? std::string("taken") : read.error().detail;
  };
  CHECK_THAT(refusal(""), Contains("no Content-Disposition"));
  CHECK_THAT(refusal("Content-Disposition form-data\r\n"), Contains("is no header line"));
  CHECK_THAT(refusal("Content-Disposition: attachment; name=a\r\n"), Contains("not form-data"));
  CHECK_THAT(refusal("Content-Disposition: form-data\r\n"), Contains("no name"));
  CHECK_THAT(refusal("Content-Disposition: form-data; name=\"a\r\n"), Contains("does not end"));
  CHECK_THAT(refusal("Content-Disposition: form-data; name=a; name=b\r\n"), Contains("twice"));
  CHECK_THAT(refusal("Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; "
                     "name=b\r\n"),
             Contains("two Content-Dispositions"));
  CHECK_THAT(refusal("Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: "
                     "base64\r\n"),
             Contains("send the bytes as they are"));
  CHECK_THAT(refusal("Content-Disposition: form-data; name=a; filename*=x\r\n"),
             Contains("filename*"));
}

TEST_CASE("names are read as browsers, curl and httpx write them") {
  CHECK(headers("form-data; name=\"file\"; filename=\"a.jsonl\"").filename == "a.jsonl");
  CHECK(headers("form-data; name=file; filename=a.jsonl").filename == "a.jsonl");
  CHECK(headers("form-data; name=file; filename=my data.jsonl ; x=y").filename == "my data.jsonl");
  CHECK(headers("FORM-DATA ; NAME = \"file\" ; FileName = \"\"").filename == "");
  CHECK(headers(R"(form-data; name="file"; filename="a\"b\\c;d.jsonl")").filename ==
        R"(a"b\c;d.jsonl)");
  CHECK(headers(R"(form-data; name="file"; filename="C:\data\a.jsonl")").filename ==
        R"(C:\data\a.jsonl)");
  CHECK(headers(R"(form-data; name="file"; filename="a%22b%41.jsonl")").filename ==
        R"(a"b%41.jsonl)");
  CHECK(headers("form-data; name=\"file\"; filename=\"größe.jsonl\"").filename == "größe.jsonl");
  CHECK(headers("form-data; name=file; filename=x; filename*=UTF-8''gr%C3%B6%C3%9Fe.jsonl")
            .filename == "größe.jsonl");
  CHECK(headers("form-data; name=file; filename*=ISO-8859-1'de'gr%F6%DFe").filename == "größe");
  const auto folded = read_part_headers(
      "Content-Type: text/plain\r\nContent-Disposition: form-data;\r\n name=\"a\"\r\n");
  REQUIRE(folded);
  CHECK(folded->name == "a");
  CHECK(folded->content_type == "text/plain");
}

TEST_CASE("the boundary is what the Content-Type says, within RFC 2046's bounds") {
  CHECK(*multipart_boundary("multipart/form-data; boundary=abc") == "abc");
  CHECK(*multipart_boundary("Multipart/Form-Data;charset=utf-8; Boundary=\"a b:c\"") == "a b:c");
  for (const std::string refused :
       {"", "application/json", "multipart/mixed; boundary=a", "multipart/form-data",
        "multipart/form-data; boundary=", "multipart/form-data; boundary=\"a\x01\"",
        "multipart/form-data; boundary=\"a \"", "multipart/form-data; boundary=a; boundary=b"}) {
    INFO(refused);
    CHECK_FALSE(multipart_boundary(refused));
  }
  CHECK(multipart_boundary("multipart/form-data; boundary=" + std::string(70, 'x')));
  CHECK_FALSE(multipart_boundary("multipart/form-data; boundary=" + std::string(71, 'x')));
}
