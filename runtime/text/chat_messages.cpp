// Reads nothing but what the caller has checked; what is not as stated is an error of ours.
#include "runtime/text/chat_messages.hpp"

namespace tandem::text {
namespace {

std::string joined_parts(value::array& parts) {
  std::string joined;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) joined += '\n';
    const std::string* words = parts[i].if_string();
    if (words == nullptr) {
      const value* type = parts[i].find("type");
      ensure(type != nullptr && type->if_string() != nullptr, "an unchecked content part");
      const value* member = parts[i].find(*type->if_string());
      words = member == nullptr ? nullptr : member->if_string();
    }
    ensure(words != nullptr, "an unchecked content part");
    joined += *words;
  }
  return joined;
}

}  // namespace

void open_tool_arguments(value& tool_calls) {
  value::array* calls = tool_calls.if_array();
  if (calls == nullptr) return;
  for (value& call : *calls) {
    value::object* members = call.if_object();
    if (members == nullptr) continue;
    for (auto& [name, function] : *members) {
      if (name != "function") continue;
      const value* arguments = function.find("arguments");
      const std::string* written = arguments == nullptr ? nullptr : arguments->if_string();
      if (written == nullptr) continue;
      auto parsed = value::from_json(*written);
      if (parsed && parsed->if_object() != nullptr) function.set("arguments", std::move(*parsed));
    }
  }
}

value template_message(value message) {
  value::object* members = message.if_object();
  ensure(members != nullptr, "a message that is no object");
  value out;
  out.set("role", std::string());
  out.set("content", std::string());
  for (auto& [name, member] : *members) {
    if (member.is_null()) continue;
    if (name == "role" && *member.if_string() == "developer") member = "system";
    if (name == "content")
      if (value::array* parts = member.if_array()) member = joined_parts(*parts);
    if (name == "tool_calls") open_tool_arguments(member);
    out.set(name, std::move(member));
  }
  return out;
}

void add_token_spellings(value& context, const tokenizer& of) {
  const auto spelling = [&](std::optional<token_id> id) {
    return std::string(id ? of.token_spelling(*id) : std::string_view());
  };
  context.set("bos_token", spelling(of.bos()));
  context.set("eos_token", spelling(of.eos()));
  if (of.unknown()) context.set("unk_token", spelling(of.unknown()));
}

}  // namespace tandem::text
