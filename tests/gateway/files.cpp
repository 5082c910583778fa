#include "gateway/openai/file_form.hpp"
#include "tests/support/upload.hpp"

#include <set>

using namespace tandem;
using namespace tandem::test;

namespace {

const std::string lines = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";

struct file_world {
  store_world kept;
  gateway_world web{kept.shared()};

  std::string added(const std::string& bytes = lines, const std::string& purpose = "fine-tune") {
    const auto to = upload(web, {{"purpose", purpose}, {"file", bytes}});
    INFO(to->body);
    REQUIRE(to->status == 200);
    return text_at(json(to->body), "id");
  }
  std::size_t files_on_disk() const {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(kept.path() / "store" / "files"))
      count += entry.path().empty() ? 0 : 1;
    return count;
  }
};

}  // namespace

TEST_CASE("an upload is answered with the file's object and found again") {
  file_world world;
  const auto to = upload(world.web, {{"purpose", "fine-tune"}, {"file", lines}}, "my data.jsonl");
  REQUIRE(to->status == 200);
  const auto body = json(to->body);
  CHECK(text_at(body, "object") == "file");
  CHECK(text_at(body, "filename") == "my data.jsonl");
  CHECK(text_at(body, "purpose") == "fine-tune");
  CHECK(text_at(body, "status") == "processed");
  CHECK(number_at(body, "bytes") == static_cast<std::int64_t>(lines.size()));
  const auto id = text_at(body, "id");
  CHECK(world.web.call("GET", "/v1/files/" + id)->body == to->body);
}

TEST_CASE("the fields of an upload come in any order") {
  file_world world;
  CHECK(upload(world.web, {{"file", lines}, {"purpose", "batch"}})->status == 200);
  CHECK(upload(world.web, {{"other", "x"}, {"file", lines}, {"purpose", "evals"}})->status == 200);
}

TEST_CASE("a file's content comes back to the byte, piece by piece") {
  file_world world;
  std::string bytes;
  for (int i = 0; bytes.size() < 700'000; ++i)
    bytes += "line " + std::to_string(i) + "\r\n--xy\r\n";
  const auto id = world.added(bytes, "user_data");
  const auto to = world.web.call("GET", "/v1/files/" + id + "/content");
  CHECK(to->status == 200);
  CHECK(to->content_type == "application/octet-stream");
  CHECK(to->body == bytes);
  CHECK(to->pieces == 3);
  CHECK(to->header("content-disposition") ==
        "attachment; filename=\"data.jsonl\"; filename*=UTF-8''data.jsonl");
  CHECK(world.web.call("GET", "/v1/files/" + world.added("", "user_data") + "/content")
            ->body.empty());
}

TEST_CASE(
    "what is missing or wrong in an upload is refused by field, and nothing is left on disk") {
  file_world world;
  auto& web = world.web;
  check_refused(*upload(web, {{"purpose", "fine-tune"}}), 400, "file", "Missing");
  check_refused(*upload(web, {{"file", lines}}), 400, "purpose", "Missing");
  check_refused(*upload(web, {{"purpose", "train"}, {"file", lines}}), 400, "purpose",
                "'train' is not one of ['fine-tune'");
  check_refused(*upload(web, {{"purpose", "fine-tune-results"}, {"file", lines}}), 400, "purpose",
                "is not one of");
  check_refused(*upload(web, {{"file", lines}, {"file", lines}, {"purpose", "batch"}}), 400, "file",
                "given twice");
  check_refused(*upload(web, {{"purpose", "batch"}, {"purpose", "batch"}, {"file", lines}}), 400,
                "purpose", "given twice");
  check_refused(*upload(web, {{"purpose", std::string(500, 'x')}, {"file", lines}}), 400, "purpose",
                "longer than 256 bytes");
  check_refused(*upload(web, {{"expires_after[seconds]", "3600"}, {"file", lines}}), 400,
                "expires_after", "Unsupported");
  check_refused(*upload(web, {{"file", lines}}, std::string(300, 'x')), 400, "file",
                "longer than 255 bytes");
  check_refused(*upload_body(web, "{}", "application/json"), 400, "", "multipart/form-data");
  check_refused(*upload_body(web, form_body({{"file", lines}}).substr(0, 120)), 400, "",
                "before its last boundary");
  CHECK(world.files_on_disk() == 0);
  CHECK(text_at(json(web.call("GET", "/v1/files")->body), "object") == "list");
}

TEST_CASE(
    "a training file that is plainly no JSON lines is refused, one with a bad line is taken") {
  file_world world;
  for (const std::string purpose : {"fine-tune", "batch"}) {
    const auto refused = [&](const std::string& bytes, const std::string& why) {
      check_refused(*upload(world.web, {{"purpose", purpose}, {"file", bytes}}), 400, "file", why);
    };
    refused("", "empty");
    refused("\n\n  \n", "empty");
    refused("a,b,c\n1,2,3\n", "the first line is none");
    refused("[{\"text\": \"x\"}]\n", "the first line is none");
    refused("{\n  \"text\": \"x\"\n}\n", "not valid JSON");
  }
  CHECK(world.files_on_disk() == 0);
  world.added("\xef\xbb\xbf\r\n{\"text\": \"x\"}\r\nnot json\n");
  world.added("{\"text\": \"" + std::string(200'000, 'x') + "\"}\n");
  world.added("a,b,c\n", "user_data");
}

TEST_CASE("a file above the limit is refused while it comes") {
  store_world kept;
  settings s;
  s.server.max_file_bytes = 1000;
  gateway_world web(kept.shared(), s);
  const std::string most = "{" + std::string(998, ' ') + "}";
  CHECK(upload(web, {{"purpose", "batch"}, {"file", most}})->status == 200);
  check_refused(*upload(web, {{"file", most + "\n"}, {"purpose", "batch"}}), 413, "file",
                "larger than 1000 bytes");
}

TEST_CASE("files are listed by purpose, order and page") {
  file_world world;
  std::vector<std::string> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(world.added());
  world.added("x", "user_data");
  const auto list = [&](const std::string& query) {
    const auto to = world.web.call("GET", "/v1/files" + query);
    REQUIRE(to->status == 200);
    return json(to->body);
  };
  auto body = list("?purpose=fine-tune&limit=2");
  CHECK(text_at(body, "data.0.id") == ids[2]);
  CHECK(text_at(body, "data.1.id") == ids[1]);
  CHECK(text_at(body, "first_id") == ids[2]);
  CHECK(text_at(body, "last_id") == ids[1]);
  CHECK(*at(body, "has_more").if_bool());
  body = list("?purpose=fine-tune&limit=2&after=" + ids[1]);
  CHECK(text_at(body, "data.0.id") == ids[0]);
  CHECK_FALSE(*at(body, "has_more").if_bool());
  CHECK(text_at(list("?order=asc"), "data.0.id") == ids[0]);
  CHECK(at(list("?purpose=vision"), "first_id").is_null());
  check_refused(*world.web.call("GET", "/v1/files?limit=0"), 400, "limit", "from 1 to 10000");
  check_refused(*world.web.call("GET", "/v1/files?limit=ten"), 400, "limit", "'ten'");
  check_refused(*world.web.call("GET", "/v1/files?order=up"), 400, "order", "'asc' or 'desc'");
  check_refused(*world.web.call("GET", "/v1/files?after=file-x"), 400, "after", "file-x");
}

TEST_CASE("a deleted file is gone, one a job needs is kept, an unknown one is 404") {
  file_world world;
  const auto id = world.added();
  const auto to = world.web.call("DELETE", "/v1/files/" + id);
  CHECK(json(to->body).to_json() == R"({"object":"file","id":")" + id + R"(","deleted":true})");
  for (const std::string& path : {"/v1/files/" + id, "/v1/files/" + id + "/content"})
    check_refused(*world.web.call("GET", path), 404, "id", "No such File object");
  check_refused(*world.web.call("DELETE", "/v1/files/" + id), 404, "id", "No such File");
  check_refused(*world.web.call("GET", "/v1/files/..%2f..%2fetc"), 404, "id", "No such File");
  const auto job = world.kept.job();
  check_refused(*world.web.call("DELETE", "/v1/files/" + job.training_file), 400, "file_id",
                "is needed by " + job.id);
}

TEST_CASE("a file's name is kept without folders and control characters") {
  using gateway::openai::clean_filename;
  CHECK(clean_filename("a.jsonl") == "a.jsonl");
  CHECK(clean_filename("/etc/../passwd") == "passwd");
  CHECK(clean_filename("C:\\data\\a.jsonl") == "a.jsonl");
  CHECK(clean_filename("") == "upload");
  CHECK(clean_filename("..") == "upload");
  CHECK(clean_filename("x/") == "upload");
  CHECK(clean_filename("a\r\nb") == "a__b");
  CHECK(clean_filename("gr\xf6sse") == "gr\xef\xbf\xbdsse");
}
