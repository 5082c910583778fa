// What a line of training data may be, and what is said of one that is none.
#include "tests/support/temporary_folder.hpp"
#include "tests/support/training.hpp"

#include <catch2/catch.hpp>

#include <fmt/format.h>

using namespace tandem;
using namespace tandem::train;

namespace {

// "line 1, field: what…"; empty when nothing is wrong.
std::string faults_of(std::string_view jsonl) { return describe(check_bytes(jsonl)); }

// A chat whose one message after the user's is `assistant`.
std::string chat(std::string_view assistant, std::string_view more = "") {
  return fmt::format(R"({{"messages":[{{"role":"user","content":"q"}},{}]{}}})", assistant, more);
}

constexpr std::string_view good_turn = R"({"role":"assistant","content":"a"})";

struct refusal {
  std::string line;
  std::string says;  // the beginning of what is said
};

void check(const std::vector<refusal>& all) {
  for (const auto& [line, says] : all) {
    INFO(line.substr(0, 300));
    const std::string said = faults_of(line);
    INFO(said.substr(0, 400));
    CHECK(said.substr(0, says.size()) == says);
  }
}

}  // namespace

TEST_CASE("each of the four forms is taken, chats with all that OpenAI's have") {
  for (const std::string& line : {
           chat(good_turn),
           chat(R"({"role":"assistant","content":"a","weight":0},{"role":"user","content":"q"},)"
                R"({"role":"assistant","content":"a","weight":1,"name":"Bob"})"),
           chat(R"({"role":"assistant","content":[{"type":"text","text":"a"},"b"]})"),
           chat(R"({"role":"assistant","tool_calls":[{"id":"c","type":"function","function":)"
                R"({"name":"f","arguments":"{\"x\":1}"}}]},{"role":"tool","tool_call_id":"c",)"
                R"("content":"7"},{"role":"assistant","content":"7","tool_calls":null})",
                R"(,"parallel_tool_calls":false,"tools":[{"type":"function","function":)"
                R"({"name":"f","parameters":{}}}])"),
           std::string(R"({"messages":[{"role":"developer","content":"s"},)"
                       R"({"role":"user","content":""},{"role":"assistant","content":"a"}]})"),
           std::string(R"({"prompt":"p","completion":"c"})"),
           std::string(R"({"prompt":"","completion":" c"})"),
           std::string(R"({"input":"p","output":"c"})"),
           std::string(R"({"text":"t"})"),
       }) {
    INFO(line);
    CHECK(faults_of(line) == "");
    CHECK(check_bytes(line).lines == 1);
  }
}

TEST_CASE("a byte-order mark, Windows line ends, blank lines and a missing last end do no harm") {
  const auto report = check_bytes(
      "\xEF\xBB\xBF{\"text\":\"a\"}\r\n\r\n  \n{\"text\":\"b\"}\n\n"
      "{\"text\":\"c\"}");
  CHECK(report.lines == 3);
  CHECK(describe(report) == "");
  CHECK(describe(check_bytes("\n\r\n{\"text\":1}")) ==
        "line 3, text: expected a string, got a number");
}

TEST_CASE("a line that is not one object of JSON is refused with what it is instead") {
  check({
      {"{\"text\":\"a\"", "line 1: not one JSON object"},
      {"{\"text\":\"a\"} x", "line 1: not one JSON object"},
      {"{\"text\":\"a\"}{\"text\":\"b\"}",
       "line 1: not one JSON object; is a line break missing between two examples?"},
      {"{", "line 1: not one whole JSON object; an example must stand on one line"},
      {"{\"messages\": [", "line 1: not one whole JSON object"},
      {"7", "line 1: not a JSON object; each line must be one example"},
      {"null", "line 1: not a JSON object"},
      {"{\"text\":\"a\"}\n[1]", "line 2: a JSON array; each line must be one example"},
      {"{'text':'a'}", "line 1: not one JSON object"},
      {"{\"text\":NaN}", "line 1: "},
      {"{\"text\":\"\\ud800\"}", "line 1: "},
      {"{\"text\":\"a\tb\"}", "line 1: a string with a raw control character"},
      {"{\"text\":\"a\xFF\"}", "line 1: not valid UTF-8 at byte 11; save the file as UTF-8"},
      {std::string("{\"text\":\"a\0\"}", 13), "line 1: a NUL byte at byte 11"},
      {"{\"text\":\"a\",\"text\":\"b\"}", "line 1, text: this key is there twice; remove one"},
      {R"({"messages":[{"role":"user","content":"a","role":"tool"}]})",
       "line 1, messages[0].role: this key is there twice"},
      {"{\"a\":" + std::string(200, '[') + std::string(200, ']') + "}",
       "line 1: nested deeper than 100 levels"},
      {"{\"a\":" + std::string(100'000, '['), "line 1: "},
  });
}

TEST_CASE("a file of another kind is refused once, by what it is") {
  const std::string array = "[\n{\"text\":\"a\"},\n{\"text\":\"b\"}\n]\n";
  CHECK(faults_of(array) ==
        "line 1: the file is a JSON array; write each example on a line of its own, without commas "
        "between (jq -c '.[]' FILE)");
  CHECK(faults_of("\xFF\xFE{\0") == "line 1: the file is UTF-16; save it as UTF-8");
  CHECK(faults_of("") == "line 1: the file has no examples");
  CHECK(faults_of("\n  \r\n") == "line 1: the file has no examples");
  CHECK(check_bytes("").faulty == 1);
}

TEST_CASE("keys that are unknown, of two forms, or missing are said by name") {
  check({
      {R"({"text":"a","txet":"b"})", "line 1, txet: unknown; did you mean 'text'?"},
      {R"({"mesages":[]})", "line 1, mesages: unknown; did you mean 'messages'?"},
      {R"({"id":7})", "line 1, id: unknown; known are messages, tools"},
      {R"({})", "line 1: no form of training data; a line is {\"messages\": […]}"},
      {R"({"tools":[]})", "line 1: no form of training data"},
      {R"({"text":"a","prompt":"b"})", "line 1: two forms at once, prompt and completion and text"},
      {R"({"messages":[],"text":"b"})", "line 1: two forms at once, chat and text"},
      {R"({"prompt":"b"})", "line 1, completion: missing; the prompt and completion form needs it"},
      {R"({"output":"b"})", "line 1, input: missing; the input and output form needs it"},
      {R"({"prompt":"b","output":"c"})", "line 1: two forms at once"},
      {R"({"text":"a","tools":[]})", "line 1, tools: not part of the text form"},
      {chat(good_turn, R"(,"functions":[])"), "line 1, functions: the old form; write \"tools\""},
      {R"({"prompt":7,"completion":"c"})", "line 1, prompt: expected a string, got a number"},
      {R"({"prompt":"b","completion":""})", "line 1, completion: empty; there is nothing to learn"},
      {R"({"text":null})", "line 1, text: expected a string, got null"},
      {R"({"text":""})", "line 1, text: empty; there is nothing to learn"},
  });
}

TEST_CASE("preference data is refused by its name and with a way to use it") {
  check({
      {R"({"input":{"messages":[]},"preferred_output":[],"non_preferred_output":[]})",
       "line 1, preferred_output: this is preference data (DPO), which is not built; write the "
       "preferred answer as the last message of {\"messages\": […]}"},
      {R"({"prompt":"a","chosen":"b","rejected":"c"})",
       "line 1, chosen: this is preference data (DPO), which is not built; write {\"prompt\", "
       "\"completion\"}"},
  });
}

TEST_CASE("messages are checked by place, role and content") {
  check({
      {R"({"messages":"a"})", "line 1, messages: expected an array, got a string"},
      {R"({"messages":[]})", "line 1, messages: empty"},
      {R"({"messages":[7]})", "line 1, messages[0]: expected an object, got a number"},
      {chat(R"({"content":"a"})"), "line 1, messages[1].role: missing; one of 'system'"},
      {chat(R"({"role":7,"content":"a"})"), "line 1, messages[1].role: expected a string"},
      {chat(R"({"role":"bot","content":"a"})"), "line 1, messages[1].role: 'bot' is not a role"},
      {chat(R"({"role":"function","content":"a"})"),
       "line 1, messages[1].role: 'function' is the old form"},
      {chat(R"({"role":"assistant"})"), "line 1, messages[1].content: missing"},
      {chat(R"({"role":"assistant","content":null})"),
       "line 1, messages[1].content: null, which only an assistant turn with tool_calls may have"},
      {chat(R"({"role":"user","content":null})"), "line 1, messages[1].content: null"},
      {chat(R"({"role":"assistant","content":""})"), "line 1, messages[1].content: empty"},
      {chat(R"({"role":"assistant","content":[]})"), "line 1, messages[1].content: empty"},
      {chat(R"({"role":"assistant","content":7})"),
       "line 1, messages[1].content: expected a string or an array of text parts, got a number"},
      {chat(R"({"role":"assistant","content":[{"type":"image_url","image_url":{}}]})"),
       "line 1, messages[1].content[0].type: 'image_url' parts cannot be trained on; only text"},
      {chat(R"({"role":"assistant","content":[{"type":"text"}]})"),
       "line 1, messages[1].content[0].text: missing"},
      {chat(R"({"role":"assistant","content":[7]})"),
       "line 1, messages[1].content[0]: expected a part"},
      {chat(R"({"role":"assistant","content":"a","wieght":1})"),
       "line 1, messages[1].wieght: unknown; did you mean 'weight'?"},
      {chat(R"({"role":"assistant","content":"a","function_call":{}})"),
       "line 1, messages[1].function_call: the old form; write \"tool_calls\""},
      {chat(R"({"role":"assistant","content":"a","name":7})"),
       "line 1, messages[1].name: expected a string, got a number"},
      {chat(R"({"role":"user","content":"a"})"), "line 1, messages: no assistant message"},
      {chat(std::string(good_turn) + R"(,{"role":"user","content":"thanks"})"),
       "line 1, messages[2].role: the last message must be the assistant's"},
  });
}

TEST_CASE("weights are 0 or 1 and an assistant's, and one of them must be 1") {
  check({
      {chat(R"({"role":"assistant","content":"a","weight":2})"),
       "line 1, messages[1].weight: expected 0 (shown, not learned) or 1"},
      {chat(R"({"role":"assistant","content":"a","weight":0.5})"), "line 1, messages[1].weight: "},
      {chat(R"({"role":"assistant","content":"a","weight":true})"), "line 1, messages[1].weight: "},
      {R"({"messages":[{"role":"user","content":"q","weight":1},{"role":"assistant","content":"a"}]})",
       "line 1, messages[0].weight: only assistant turns have one"},
      {chat(R"({"role":"assistant","content":"a","weight":0})"),
       "line 1, messages: every assistant turn has weight 0"},
  });
}

TEST_CASE("tool calls and their answers are checked") {
  const auto call = [](std::string_view function) {
    return chat(fmt::format(R"({{"role":"assistant","tool_calls":[{{"id":"c","type":"function",)"
                            R"("function":{}}}]}})",
                            function));
  };
  check({
      {call(R"({"name":"f"})"),
       "line 1, messages[1].tool_calls[0].function.arguments: missing; \"{}\" when there are none"},
      {call(R"({"name":"","arguments":"{}"})"),
       "line 1, messages[1].tool_calls[0].function.name: "},
      {call(R"({"name":"f","arguments":"{x"})"),
       "line 1, messages[1].tool_calls[0].function.arguments: not a JSON object inside the string"},
      {call(R"({"name":"f","arguments":7})"),
       "line 1, messages[1].tool_calls[0].function.arguments: expected JSON as a string"},
      {call("7"), "line 1, messages[1].tool_calls[0].function: missing"},
      {chat(R"({"role":"assistant","content":"a","tool_calls":[]})"),
       "line 1, messages[1].tool_calls: empty; leave it out"},
      {chat(R"({"role":"user","content":"a","tool_calls":[{}]})"),
       "line 1, messages[1].tool_calls: only assistant turns call tools"},
      {chat(R"({"role":"tool","content":"7"},{"role":"assistant","content":"a"})"),
       "line 1, messages[1].tool_call_id: missing"},
      {chat(
           R"({"role":"tool","content":"7","tool_call_id":"x"},{"role":"assistant","content":"a"})"),
       "line 1, messages[1].tool_call_id: no tool call before it has the id 'x'"},
      {chat(R"({"role":"assistant","content":"a","tool_call_id":"x"})"),
       "line 1, messages[1].tool_call_id: only tool messages have one"},
      {chat(good_turn, R"(,"tools":{})"), "line 1, tools: expected an array, got an object"},
      {chat(good_turn, R"(,"tools":[{"name":"f"}])"), "line 1, tools[0]: expected {\"type\""},
      {chat(good_turn, R"(,"parallel_tool_calls":1)"),
       "line 1, parallel_tool_calls: expected true or false, got a number"},
  });
}

TEST_CASE("the first ten faults are kept and all are counted") {
  std::string lines;
  for (int i = 0; i < 8; ++i)
    lines += "{\"text\":7}\n{\"text\":\"good\"}\n{\"prompt\":1,\"completion\":2}\n";
  const auto report = check_bytes(lines);
  CHECK(report.lines == 24);
  CHECK(report.faulty == 16);
  REQUIRE(report.faults.size() == faults_kept);
  CHECK(report.faults[0].line == 1);
  CHECK(report.faults[2].line == 3);
  CHECK(report.faults[2].field == "completion");
  CHECK(report.unnamed == 14);
  CHECK(describe(report).find("\nand 14 more; 16 of 24 lines are faulty") != std::string::npos);
}

TEST_CASE("a line that is too long is refused alone, and costs no more memory than is stated") {
  const std::string long_line = "{\"text\":\"" + std::string(line_bytes_max, 'a') + "\"}";
  const auto report = check_bytes(long_line + "\n{\"text\":\"a\"}\n{\"text\":1}\n");
  CHECK(report.lines == 3);
  CHECK(describe(report) ==
        "line 1: 8388619 bytes long, at most 8388608; is it one example a "
        "line?\nline 3, text: expected a string, got a number");
  std::string whole = "{\"text\":\"" + std::string(line_bytes_max - 11, 'a') + "\"}";
  CHECK(faults_of(whole) == "");
  CHECK(faults_of("\xEF\xBB\xBF" + whole + "\r\n") == "");
  whole.insert(20, "a");
  CHECK(faults_of(whole).find("line 1: 8388609 bytes long") == 0);
}

TEST_CASE("a file is read as the same bytes in memory are, wherever its pieces end") {
  test::temporary_folder folder;
  std::string lines;
  for (int i = 0; i < 20'000; ++i)
    lines += i % 1000 == 999 ? "{\"text\":7}\r\n"
                             : fmt::format("{{\"text\":\"{}\"}}\n", std::string(i % 97 + 1, 'x'));
  lines += "{\"text\":\"" + std::string(600'000, 'y') + "\"}\n{\"text\":[]}";
  const auto path = folder.path() / "data.jsonl";
  std::ofstream(path, std::ios::binary) << lines;
  const auto from_file = check_file(path);
  REQUIRE(from_file);
  const auto from_memory = check_bytes(lines);
  CHECK(from_file->lines == 20'002);
  CHECK(from_file->lines == from_memory.lines);
  CHECK(from_file->faulty == 21);
  CHECK(describe(*from_file) == describe(from_memory));
}

TEST_CASE("a file that is not there is said by its name") {
  const auto gone = check_file("/nowhere/data.jsonl");
  REQUIRE_FALSE(gone);
  CHECK(gone.error().code == errc::io);
  CHECK(gone.error().detail.find("/nowhere/data.jsonl") != std::string::npos);
}
