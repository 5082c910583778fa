// Checks messages as OpenAI's fine-tuning takes them, and brings them into the form that templates
// print. A conversation ends with the assistant: nothing behind its last turn could be learned.
#include "runtime/text/chat_messages.hpp"
#include "runtime/train/form_checks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace tandem::train {

using text::value;

namespace {

constexpr std::size_t messages_max = 4096;  // each assistant turn takes a print of its own
constexpr std::size_t tools_max = 128;

// The last five are what families' templates print beside the content.
const std::vector<std::string> message_keys = {
    "role",    "content",           "name",      "tool_calls", "tool_call_id", "weight",
    "refusal", "reasoning_content", "reasoning", "thinking",   "tool_plan"};

class message_check {
 public:
  message_check(const value& message, std::string name, std::set<std::string>& call_ids,
                fault_list& faults)
      : message_(message), name_(std::move(name)), call_ids_(call_ids), faults_(faults) {}

  // True when the turn's words count.
  bool run() {
    if (message_.if_object() == nullptr) {
      faults_.add(name_, fmt::format("expected an object, got {}", kind_of(message_)));
      return false;
    }
    check_keys();
    if (!check_role()) return false;
    check_tool_calls();
    check_content();
    check_tool_answer();
    return check_weight() && is("assistant");
  }

 private:
  bool is(std::string_view role) const { return role_ == role; }
  void wrong(std::string_view key, std::string what) {
    faults_.add(fmt::format("{}.{}", name_, key), std::move(what));
  }
  // Null counts as absent, as clients write it.
  const value* find(std::string_view key) const {
    const value* found = message_.find(key);
    return found == nullptr || found->is_null() ? nullptr : found;
  }

  void check_keys() {
    for (const auto& [key, held] : *message_.if_object()) {
      if (key == "function_call") {
        wrong(key, "the old form; write \"tool_calls\"");
      } else if (std::find(message_keys.begin(), message_keys.end(), key) == message_keys.end()) {
        wrong(key, fmt::format("unknown{}", did_you_mean(key, message_keys)));
      }
    }
    for (const std::string_view key : {"name", "refusal", "reasoning_content", "reasoning",
                                       "thinking", "tool_plan", "tool_call_id"}) {
      const value* held = find(key);
      if (held != nullptr && held->if_string() == nullptr)
        wrong(key, fmt::format("expected a string, got {}", kind_of(*held)));
    }
  }

  bool check_role() {
    const value* role = find("role");
    if (role == nullptr) {
      wrong("role", "missing; one of 'system', 'developer', 'user', 'assistant' and 'tool'");
      return false;
    }
    if (role->if_string() == nullptr) {
      wrong("role", fmt::format("expected a string, got {}", kind_of(*role)));
      return false;
    }
    role_ = *role->if_string();
    if (std::find(text::chat_roles.begin(), text::chat_roles.end(), role_) !=
        text::chat_roles.end())
      return true;
    wrong("role", role_ == "function"
                      ? std::string("'function' is the old form; write 'tool' with tool_call_id")
                      : fmt::format("'{}' is not a role; one of 'system', 'developer', 'user', "
                                    "'assistant' and 'tool'",
                                    role_.substr(0, 64)));
    return false;
  }

  void check_content() {
    const value* content = find("content");
    const bool speaks_otherwise = is("assistant") && find("tool_calls") != nullptr;
    if (content == nullptr) {
      if (speaks_otherwise) return;
      wrong("content", message_.find("content") == nullptr
                           ? "missing"
                           : "null, which only an assistant turn with tool_calls may have");
      return;
    }
    bool empty = false;
    if (const std::string* words = content->if_string()) {
      empty = words->empty();
    } else if (const value::array* parts = content->if_array()) {
      empty = true;
      for (std::size_t i = 0; i < parts->size(); ++i) empty = check_part((*parts)[i], i) && empty;
    } else {
      wrong("content",
            fmt::format("expected a string or an array of text parts, got {}", kind_of(*content)));
    }
    if (empty && is("assistant") && !speaks_otherwise)
      wrong("content", "empty; an assistant turn needs words or tool_calls");
  }

  // True when the part has no words.
  bool check_part(const value& part, std::size_t index) {
    const std::string key = fmt::format("content[{}]", index);
    if (const std::string* words = part.if_string()) return words->empty();
    const value* type = part.find("type");
    if (part.if_object() == nullptr || type == nullptr || type->if_string() == nullptr) {
      wrong(key, "expected a part: {\"type\": \"text\", \"text\": \"…\"}");
      return false;
    }
    const std::string& kind = *type->if_string();
    if (kind != "text" && !(kind == "refusal" && is("assistant"))) {
      wrong(key + ".type",
            fmt::format("'{}' parts cannot be trained on; only text", kind.substr(0, 64)));
      return false;
    }
    const value* words = part.find(kind);
    if (words == nullptr || words->if_string() == nullptr) {
      wrong(fmt::format("{}.{}", key, kind),
            words == nullptr ? std::string("missing")
                             : fmt::format("expected a string, got {}", kind_of(*words)));
      return false;
    }
    return words->if_string()->empty();
  }

  void check_tool_calls() {
    const value* calls = find("tool_calls");
    if (calls == nullptr) return;
    if (!is("assistant")) return wrong("tool_calls", "only assistant turns call tools");
    const value::array* list = calls->if_array();
    if (list == nullptr || list->empty())
      return wrong("tool_calls", list == nullptr
                                     ? fmt::format("expected an array, got {}", kind_of(*calls))
                                     : "empty; leave it out");
    for (std::size_t i = 0; i < list->size(); ++i)
      check_call((*list)[i], fmt::format("tool_calls[{}]", i));
  }

  void check_call(const value& call, const std::string& key) {
    const value* function = call.find("function");
    if (function == nullptr || function->if_object() == nullptr)
      return wrong(key + ".function",
                   "missing; a call is {\"id\", \"type\": \"function\", "
                   "\"function\": {\"name\", \"arguments\"}}");
    if (const value* type = call.find("type"))
      if (type->if_string() == nullptr || *type->if_string() != "function")
        wrong(key + ".type", "expected \"function\"");
    if (const value* id = call.find("id")) {
      if (id->if_string() == nullptr)
        wrong(key + ".id", fmt::format("expected a string, got {}", kind_of(*id)));
      else
        call_ids_.insert(*id->if_string());
    }
    const value* called = function->find("name");
    if (called == nullptr || called->if_string() == nullptr || called->if_string()->empty())
      wrong(key + ".function.name", "expected the function's name");
    const value* arguments = function->find("arguments");
    if (arguments == nullptr)
      return wrong(key + ".function.arguments", "missing; \"{}\" when there are none");
    if (arguments->if_object() != nullptr) return;
    if (arguments->if_string() == nullptr)
      return wrong(key + ".function.arguments",
                   fmt::format("expected JSON as a string, got {}", kind_of(*arguments)));
    const auto opened = value::from_json(*arguments->if_string());
    if (!opened || opened->if_object() == nullptr)
      wrong(key + ".function.arguments",
            "not a JSON object inside the string; a model would learn to write broken calls");
  }

  void check_tool_answer() {
    const value* id = find("tool_call_id");
    if (!is("tool")) {
      if (id != nullptr) wrong("tool_call_id", "only tool messages have one");
      return;
    }
    if (id == nullptr) return wrong("tool_call_id", "missing; the id of the call it answers");
    if (id->if_string() != nullptr && call_ids_.count(*id->if_string()) == 0)
      wrong("tool_call_id",
            fmt::format("no tool call before it has the id '{}'", id->if_string()->substr(0, 64)));
  }

  bool check_weight() {
    const value* weight = find("weight");
    if (weight == nullptr) return true;
    if (!is("assistant")) {
      wrong("weight", "only assistant turns have one; others never count");
      return false;
    }
    if (weight->if_int() != nullptr && (*weight->if_int() == 0 || *weight->if_int() == 1))
      return *weight->if_int() == 1;
    wrong("weight", "expected 0 (shown, not learned) or 1");
    return false;
  }

  const value& message_;
  std::string name_;
  std::string role_;
  std::set<std::string>& call_ids_;  // of the calls so far
  fault_list& faults_;
};

void check_tools(const value& tools, fault_list& faults) {
  const value::array* list = tools.if_array();
  if (list == nullptr)
    return faults.add("tools", fmt::format("expected an array, got {}", kind_of(tools)));
  if (list->size() > tools_max)
    faults.add("tools", fmt::format("{} tools, at most {}", list->size(), tools_max));
  for (std::size_t i = 0; i < list->size(); ++i) {
    const value* function = (*list)[i].find("function");
    const value* called = function == nullptr ? nullptr : function->find("name");
    if (called == nullptr || called->if_string() == nullptr)
      faults.add(fmt::format("tools[{}]", i),
                 "expected {\"type\": \"function\", \"function\": "
                 "{\"name\", \"parameters\"}}");
  }
}

bool spoken_by_assistant(const value& message) {
  const value* role = message.find("role");
  return role != nullptr && role->if_string() != nullptr && *role->if_string() == "assistant";
}

void check_turns(const value::array& messages, const std::vector<bool>& counts,
                 fault_list& faults) {
  if (std::none_of(messages.begin(), messages.end(), spoken_by_assistant))
    return faults.add("messages", "no assistant message; there is nothing to learn");
  if (!spoken_by_assistant(messages.back()))
    return faults.add(fmt::format("messages[{}].role", messages.size() - 1),
                      "the last message must be the assistant's; nothing after its last turn is "
                      "learned");
  if (std::find(counts.begin(), counts.end(), true) == counts.end())
    faults.add("messages", "every assistant turn has weight 0; there is nothing to learn");
}

}  // namespace

chat_form read_chat(const value& line, fault_list& faults) {
  chat_form chat;
  const std::size_t before = faults.size();
  if (const value* parallel = line.find("parallel_tool_calls"))
    if (parallel->if_bool() == nullptr && !parallel->is_null())
      faults.add("parallel_tool_calls",
                 fmt::format("expected true or false, got {}", kind_of(*parallel)));
  if (const value* tools = line.find("tools"); tools != nullptr && !tools->is_null()) {
    check_tools(*tools, faults);
    if (tools->if_array() != nullptr && !tools->if_array()->empty()) chat.tools = *tools;
  }
  const value& messages = *line.find("messages");
  const value::array* list = messages.if_array();
  if (list == nullptr) {
    faults.add("messages", fmt::format("expected an array, got {}", kind_of(messages)));
    return chat;
  }
  if (list->empty()) {
    faults.add("messages", "empty; a conversation has at least one message");
    return chat;
  }
  if (list->size() > messages_max) {
    faults.add("messages", fmt::format("{} messages, at most {}", list->size(), messages_max));
    return chat;
  }
  std::set<std::string> call_ids;
  for (std::size_t i = 0; i < list->size(); ++i)
    chat.counts.push_back(
        message_check((*list)[i], fmt::format("messages[{}]", i), call_ids, faults).run());
  if (faults.size() == before) check_turns(*list, chat.counts, faults);
  if (faults.size() != before) return chat;
  for (const value& message : *list) {
    value shown = message;
    shown.set("weight", nullptr);  // for us, not for the template
    chat.messages.push_back(text::template_message(std::move(shown)));
  }
  return chat;
}

}  // namespace tandem::train
