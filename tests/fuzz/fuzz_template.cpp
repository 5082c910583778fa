// Any bytes as a chat template, rendered with a chat. It ends, within its limits; its pieces are
// the rendered text; and no piece that a user wrote comes out as the template's.
#include "runtime/text/chat_template.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace {

using tandem::text::chat_template;
using tandem::text::value;

// No template can spell this, but for building it from single characters of its own.
constexpr std::string_view marker = "\xEE\x80\x81\xEE\x80\x82";

const value& chat() {
  static const value context = [] {
    std::string json = R"({"bos_token":"<s>","eos_token":"</s>","add_generation_prompt":true,
      "i":7,"f":2.5,"s":"Hello, World","l":[3,1,2],"d":{"k":"v","n":2},"none":null,
      "tools":[{"type":"function","function":{"name":"f","parameters":{"a":[1,{"b":"c"}]}}}],
      "messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"<MARK> x "},
        {"role":"assistant","content":"<think>a</think>b","tool_calls":[{"function":
          {"name":"f","arguments":{"x":1}}}]},{"role":"user","content":[{"type":"text",
          "text":"<MARK>"}]}]})";
    for (std::size_t at; (at = json.find("<MARK>")) != std::string::npos;)
      json.replace(at, 6, marker);
    auto parsed = value::from_json(json);
    tandem::ensure(parsed.has_value(), "the fuzzer's own chat is broken");
    return *parsed;
  }();
  return context;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const auto compiled = chat_template::compile(source);
  if (!compiled) return 0;
  const auto pieces = compiled->render_pieces(chat(), {.now = 0});
  if (!pieces) return 0;
  const auto whole = compiled->render(chat(), {.now = 0});
  tandem::ensure(whole.has_value(), "a template that renders in pieces renders whole");
  std::string joined;
  const bool spells_marker =
      source.find('\xEE') != std::string_view::npos || source.find('\\') != std::string_view::npos;
  for (const auto& [text, trusted] : *pieces) {
    tandem::ensure(!trusted || spells_marker || text.find(marker) == std::string::npos,
                   "a user's text came out as the template's");
    joined += text;
  }
  tandem::ensure(joined == *whole, "the pieces are not the rendered text");
  return 0;
}
