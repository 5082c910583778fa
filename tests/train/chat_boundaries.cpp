// Which bytes of a conversation count, over the chat templates of many families. The stand-in
// tokenizer's tokens are bytes and the template's own control tokens, so that spans show exactly.
#include "tests/support/byte_model.hpp"
#include "tests/support/training_data.hpp"

#include <catch2/catch.hpp>

#include <iostream>

using namespace tandem;
using namespace tandem::train;
using namespace tandem::test;

TEST_CASE("explore") {
  const auto extra = read_golden("templates_extra.json");
  const std::string chat = R"({"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"One?"},{"role":"assistant","content":"First."},{"role":"user","content":"Two?"},{"role":"assistant","content":"Second."}]})";
  const std::string tools = R"({"messages":[{"role":"user","content":"Weather?"},{"role":"assistant","content":null,"tool_calls":[{"id":"call00001","type":"function","function":{"name":"get_weather","arguments":"{\"city\":\"Paris\"}"}}]},{"role":"tool","tool_call_id":"call00001","content":"21"},{"role":"assistant","content":"It is 21."},{"role":"user","content":"Thanks"},{"role":"assistant","content":"Bye."}],"tools":[{"type":"function","function":{"name":"get_weather","description":"W","parameters":{"type":"object","properties":{"city":{"type":"string","description":"C"}},"required":["city"]}}}]})";
  const std::string thinks = R"({"messages":[{"role":"user","content":"One?"},{"role":"assistant","content":"<think>\nhm\n</think>\n\nFirst."},{"role":"user","content":"Two?"},{"role":"assistant","content":"<think>\nso\n</think>\n\nSecond."}]})";
  for (const auto& [name, source] : *extra.find("families")->if_object()) {
    const auto how = reader_of(*source.if_string());
    for (const std::string& line : {chat, tools, thinks}) {
      const auto data = read_bytes(line, how, 1 << 20, too_long::refuse);
      std::cout << name << ": ";
      if (!data) { std::cout << "REFUSED " << data.error().detail << "\n"; continue; }
      std::string show;
      for (const auto& part : counted_texts(data->examples[0], how)) show += " [[" + part + "]]";
      for (std::size_t at; (at = show.find('\n')) != std::string::npos;) show.replace(at, 1, "\\n");
      std::cout << show << "\n";
    }
  }
}
